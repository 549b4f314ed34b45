"""A registry within the tree of an agent: its settings, which follow from the agent's."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.infra.settings.document import parse_toml, read_text
from nodeagent.infra.settings.endpoint import address_of
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import DatabaseSettings, RedisSettings, Settings
from registry.settings import (
    PlacementSettings,
    RegistrySection,
    ServiceSettings,
    StateSettings,
    load_registry_settings,
)


def inside_settings(agent: Settings) -> ServiceSettings:
    """The settings of the registry inside an agent: on its Redis and database, with a folder in its state folder.

    Raises:
        ConfigError: it has none.
    """
    section = agent.registry
    if section is None or not section.inside:
        raise ConfigError([Fault("registry.inside", "expected true", "false")])
    host, port = address_of(section.listen)
    return ServiceSettings(
        registry=RegistrySection(registry_id=agent.node.node_id, host=host, port=port, state_dir=agent.registry_dir),
        # Live state in Redis even so: it outlives a restart of the registry, and the link finds it there.
        state=StateSettings(mode="redis"),
        redis=RedisSettings(url=SecretStr(agent.redis_url)),
        database=DatabaseSettings(url=SecretStr(agent.database_url)),
        placement=PlacementSettings(strategy=section.strategy),
        log=agent.log,
    )


def load_either(path: Path) -> ServiceSettings:
    """The settings of a registry's file, or of the registry inside the agent whose file it is.

    Raises:
        ConfigError: it has faults; lists them all.
    """
    section = parse_toml(read_text(path), path).get("registry")
    if isinstance(section, dict) and "inside" in section:
        return inside_settings(load_settings(path))
    return load_registry_settings(path)
