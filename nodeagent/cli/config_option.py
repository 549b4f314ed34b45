"""The option `-c`, shared by all commands, and the reading of the file behind it."""

from __future__ import annotations

from pathlib import Path

from nodeagent.infra.commands import config_option_of, settings_or_exit
from nodeagent.infra.registry_door import CONFIG_VARIABLE
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import Settings

#: Where the packages' service looks for its configuration.
DEFAULT_PATH = Path("/etc/nodeagent/nodeagent.toml")

config_option = config_option_of(DEFAULT_PATH, CONFIG_VARIABLE, "The agent's")


def read_or_exit(config: Path) -> Settings:
    """The settings of a file; prints every fault and exits with USAGE when it has any."""
    return settings_or_exit(config, load_settings)
