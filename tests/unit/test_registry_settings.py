"""`[registry]` as a person writes it, and its faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.settings.loader import load_settings
from registry.inside_settings import load_either
from registry.store.seeds import seed
from tests.support.registry_store import vault, writer

MODELS = '[[models]]\nname = "m"\nfile = "m.toml"\n'
TOKEN = "t" * 32
CAMERA = '[[cameras]]\ncamera_id = "gate"\nrecord = { url = "a.mp4" }\n'
URLS = 'urls = ["http://r1:8450", "https://r2:8450"]\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file_and_secrets_hidden(tmp_path: Path) -> None:
    text = f'{MODELS}[registry]\n{URLS}token_file = "t"\nca_file = "ca.pem"\nlabels = {{ site = "north" }}\n'
    registry = load_settings(write(tmp_path, text)).registry
    assert registry is not None
    assert (registry.token_file, registry.ca_file) == (tmp_path / "t", tmp_path / "ca.pem")
    assert (registry.labels, registry.strategy) == ({"site": "north"}, "broadcast")
    assert "r1" not in repr(registry)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{MODELS}[registry]\n{URLS}", "registry.token: required, or token_file, but missing"),
        (
            f'{MODELS}[registry]\n{URLS}token = "{TOKEN}"\ntoken_file = "t"\n',
            "registry.token_file: expected only one of token and token_file",
        ),
        (f'{MODELS}[registry]\n{URLS}token = "short"\n', "registry.token: expected another value"),
        (f'[registry]\n{URLS}token = "{TOKEN}"\n', "models: the cameras of a registry need at least one [[models]]"),
        (
            f'{MODELS}[registry]\n{URLS}token = "{TOKEN}"\n{CAMERA}',
            "cameras: expected none beside [registry], which knows the cameras",
        ),
        (f'{MODELS}[registry]\nurls = []\ntoken = "{TOKEN}"\n', "registry.urls: required, or inside = true"),
        (f'{MODELS}[registry]\ntoken = "{TOKEN}"\n', "registry.urls: required, or inside = true"),
        (f'{MODELS}[registry]\n{URLS}token = "{TOKEN}"\nlisten = "h:1"\n', "registry.listen: expected only with"),
        (f"{MODELS}[registry]\ninside = true\n{URLS}", "registry.urls: expected none with inside = true"),
        (f'{MODELS}[registry]\ninside = true\ntoken = "{TOKEN}"\n', "registry.token: expected none with inside"),
        (f'{MODELS}[registry]\ninside = true\nlisten = "8450"\n', "registry.listen: expected `address:port`"),
        (f"{MODELS}[registry]\ninside = 1\n{URLS}token = '{TOKEN}'\n", "registry.inside: "),
        (f"[registry]\ninside = true\n{CAMERA}", "models: the cameras need at least one [[models]]"),
        ("[registry]\ninside = true\n", "models: the cameras of a registry need at least one [[models]]"),
        (f'{MODELS}[registry]\nurls = ["http://u:hunter2"]\ntoken = "{TOKEN}"\n', "registry.urls: expected http://"),
        (
            f'{MODELS}[registry]\n{URLS}token = "{TOKEN}"\nlabels = {{ site = "north side" }}\n',
            "registry.labels.site: expected letters, digits",
        ),
        (f'{MODELS}[registry]\n{URLS}token = "{TOKEN}"\nstrategy = "x"\n', "registry.strategy: expected 'broadcast'"),
        (
            f'{MODELS}[registry]\n{URLS}token = "{TOKEN}"\n[registry.capacity]\nring_gb = -1\n',
            "registry.capacity.ring_gb: expected at least 0",
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text))
    (found,) = map(str, caught.value.faults)
    assert found.startswith(fault)
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("camera", "fault"),
    [
        ('record = { url = "rtsp://u:hunter2@h/a@" }', "record.url: expected no `@` at its end"),
        ('record = { url = "http://h/a?key=***&b=1" }', "record.url: expected the whole URL"),
        (
            'record = { url = "a.mp4" }\nanalyse = { url = "rtsp://***@h/b" }',
            "analyse.url: expected the whole URL, user and password included",
        ),
        (f'name = "{"x" * 201}"\nrecord = {{ url = "a.mp4" }}', "name: expected at most 200 characters"),
    ],
)
def test_a_file_names_no_camera_that_the_registry_inside_could_not_keep(
    tmp_path: Path, camera: str, fault: str
) -> None:
    text = f'{MODELS}[[cameras]]\ncamera_id = "gate"\n{camera}\n'
    # Without one, nothing but the capture has to bear it.
    (alone,) = load_settings(write(tmp_path, text)).cameras
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, f"{text}[registry]\ninside = true\n"))
    (found,) = map(str, caught.value.faults)
    assert found.startswith(f"cameras[0].{fault}")
    assert "hunter2" not in found
    # As the registry says it, whoever brings the camera.
    engine = open_database(f"sqlite:///{tmp_path}/registry.db")
    migrate(engine)
    (refused,) = seed(engine, vault(), [alone], writer()).faults
    engine.dispose()
    assert found == str(refused).replace("gate", "cameras[0]", 1)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8450", "http://127.0.0.1:8450"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::]:9000", "http://[::1]:9000"),
        ("[fd00::1]:9000", "http://[fd00::1]:9000"),
        ("north.example:9000", "http://north.example:9000"),
    ],
)
def test_a_registry_inside_is_asked_where_it_listens(tmp_path: Path, listen: str, url: str) -> None:
    text = f'[node]\nstate_dir = "s"\n{MODELS}[registry]\ninside = true\nlisten = "{listen}"\n{CAMERA}'
    settings = load_settings(write(tmp_path, text))
    for door, file in ((settings.node_door, "node.token"), (settings.admin_door, "admin.token")):
        assert door is not None
        assert [each.get_secret_value() for each in door.urls] == [url]
        assert door.token_file == tmp_path / "s" / "registry" / file


def test_what_config_show_prints_of_a_registry_inside_is_read_again(tmp_path: Path) -> None:
    text = f'{MODELS}[registry]\ninside = true\nlisten = "127.0.0.1:8450"\nurls = []\n'
    assert load_settings(write(tmp_path, text)).registry_inside


def test_registries_elsewhere_are_asked_as_the_file_says(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, f'{MODELS}[registry]\n{URLS}token = "{TOKEN}"\n'))
    assert settings.node_door == settings.admin_door == settings.registry
    assert not settings.registry_inside
    assert load_settings(write(tmp_path, "")).node_door is None


def test_a_registry_inside_lives_on_what_its_agent_has(tmp_path: Path) -> None:
    text = f'[node]\nnode_id = "n1"\nstate_dir = "s"\n{MODELS}[registry]\ninside = true\nlisten = "[::1]:9000"\n'
    path = write(tmp_path, text)
    settings, made = load_settings(path), load_either(path)
    assert (made.registry.registry_id, made.registry.host, made.registry.port) == ("n1", "::1", 9000)
    assert (made.redis_url, made.database_url, made.mode) == (settings.redis_url, settings.database_url, "redis")
    assert made.key_file == tmp_path / "s" / "registry" / "credentials.keys"
    path = write(tmp_path, f'{text}[redis]\nurl = "redis://r/0"\n[database]\nurl = "mysql://u:p@h/n"\n')
    made = load_either(path)
    assert (made.redis_url, made.database_url) == ("redis://r/0", "mysql://u:p@h/n")


def test_an_agent_s_file_is_told_from_a_registry_s(tmp_path: Path) -> None:
    assert load_either(write(tmp_path, '[registry]\nregistry_id = "reg1"\n')).registry.registry_id == "reg1"
    with pytest.raises(ConfigError, match=r"registry\.inside: expected true"):
        load_either(write(tmp_path, f'{MODELS}[registry]\ninside = false\n{URLS}token = "{TOKEN}"\n'))
