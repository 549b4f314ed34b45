"""`[registry]` as a person writes it, and its faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.settings.loader import load_settings

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
        (f'{MODELS}[registry]\nurls = []\ntoken = "{TOKEN}"\n', "registry.urls: "),
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
