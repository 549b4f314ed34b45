"""The registry's TOML: what it means, its shipped example, and every fault of a faulty one, without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from pydantic import BaseModel

from nodeagent.contract.errors import ConfigError
from nodeagent.contract.ownership import LEASE_S
from registry.settings import PATH_FIELDS, ServiceSettings, load_registry_settings, parse_registry_settings
from tests.architecture.source_tree import ROOT

WHERE = Path("/etc/nodeagent/registry.toml")

MANY = """
[registry]
registry_id = "../up"
port = 70000
hots = "x"

[database]
url = "postgres://user:hunter2@db/x"

[state]
mode = "redis"

[secrets]
key_file = 5

[tls]
certificate = "c.pem"

[membership]
lease_s = "4"
freeze_s = -1

[placement]
strategy = "random"
rebalance = 1

[log]
level = "loud"

[extra]
"""

EXPECTED = {
    "registry.registry_id": ("a letter or digit first", "'../up'"),
    "registry.port": ("at most 65535", "70000"),
    "registry.hots": ("did you mean host?", ""),
    "database.url": ("mysql://", "'postgres://...'"),
    "redis.url": ('required with state.mode = "redis"', ""),
    "secrets.key_file": ("a path in quotes", "5"),
    "tls.key": ("required, but missing", ""),
    "membership.lease_s": ("a number without quotes", "'4'"),
    "membership.freeze_s": ("at least 0", "-1"),
    "placement.strategy": ("'broadcast' or 'claim'", "'random'"),
    "placement.rebalance": ("true or false", "1"),
    "log.level": ("'debug', 'info', 'warning' or 'error'", "'loud'"),
    "extra": ("unknown key", ""),
}


def test_every_fault_is_named_with_its_path_and_no_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_registry_settings(MANY, WHERE)
    faults = {fault.path: fault for fault in caught.value.faults}
    assert set(faults) == set(EXPECTED)
    for path, (message, value) in EXPECTED.items():
        assert message in faults[path].message, path
        assert faults[path].value == value, path
    assert "hunter2" not in str(caught.value)


def test_an_empty_file_is_one_registry_on_one_host() -> None:
    settings = parse_registry_settings("", WHERE)
    state = settings.registry.state_dir
    assert settings.registry.registry_id
    assert (settings.registry.host, settings.registry.port) == ("127.0.0.1", 8450)
    assert (settings.mode, settings.redis_url, settings.tls) == ("memory", None, None)
    assert settings.database_url == f"sqlite:///{state}/registry.db"
    assert settings.key_file == state / "credentials.keys"
    assert settings.membership.lease_s == LEASE_S
    assert settings.placement.strategy == "broadcast"


def test_a_redis_that_is_given_is_used(tmp_path: Path) -> None:
    given = '[redis]\nurl = "redis://:hunter2@cache:6379/0"\n'
    settings = parse_registry_settings(given, WHERE)
    assert (settings.mode, settings.redis_url) == ("redis", "redis://:hunter2@cache:6379/0")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
    assert parse_registry_settings(given + '[state]\nmode = "memory"', WHERE).mode == "memory"


@pytest.mark.parametrize("rest", ["", '[state]\nmode = "memory"\n[redis]\nurl = "redis://cache:6379/0"'])
def test_claiming_needs_a_pool_in_redis(rest: str) -> None:
    with pytest.raises(ConfigError, match=r"placement.strategy: expected \"broadcast\" in memory mode"):
        parse_registry_settings('[placement]\nstrategy = "claim"\n' + rest, WHERE)
    redis = '[placement]\nstrategy = "claim"\n[redis]\nurl = "redis://cache:6379/0"'
    assert parse_registry_settings(redis, WHERE).placement.strategy == "claim"


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "\n".join(f'{field} = "x/{field.partition(".")[2]}"' for field in PATH_FIELDS)
    settings = parse_registry_settings(text, tmp_path / "registry.toml")
    assert settings.registry.state_dir == tmp_path / "x/state_dir"
    assert settings.key_file == tmp_path / "x/key_file"
    assert settings.tls and (settings.tls.certificate, settings.tls.key) == (
        tmp_path / "x/certificate",
        tmp_path / "x/key",
    )


def test_the_shipped_example_is_sound_and_names_every_field() -> None:
    path = ROOT / "etc" / "registry.toml"
    settings = load_registry_settings(path)
    assert settings.mode == "redis"
    doc = tomli.loads(path.read_text())
    for name, field in ServiceSettings.model_fields.items():
        section = getattr(settings, name)
        assert isinstance(section, BaseModel), field
        assert set(doc[name]) == set(type(section).model_fields), name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"[registry\n", "not TOML"),
        (b"# caf\xe9\n", "expected UTF-8 text, byte 5"),
        (b"registry = 5", "registry: expected a table"),
        (b"registry = 5\nsecrets = []", "secrets: expected a table"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "registry.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_registry_settings(path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_bytes(b"\xef\xbb\xbf[registry]\nport = 9\n")
    assert load_registry_settings(path).registry.port == 9
