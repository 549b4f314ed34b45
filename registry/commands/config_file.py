"""The option `-c` of commands that work on the registry's own configuration, and the reading of the file behind it."""

from __future__ import annotations

from pathlib import Path

from nodeagent.infra.commands import config_option_of, settings_or_exit
from registry.settings import DEFAULT_PATH, PATH_VARIABLE, ServiceSettings, load_registry_settings

config_option = config_option_of(DEFAULT_PATH, PATH_VARIABLE, "The registry's")


def read_or_exit(config: Path) -> ServiceSettings:
    """The settings of a file; prints every fault and exits with USAGE when it has any."""
    return settings_or_exit(config, load_registry_settings)
