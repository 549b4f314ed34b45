"""The option `-c` of commands that work on the registry's own configuration, and the reading of the file behind it."""

from __future__ import annotations

from pathlib import Path

from nodeagent.infra.commands import config_option_of, settings_or_exit
from registry.inside_settings import load_either
from registry.settings import DEFAULT_PATH, PATH_VARIABLE, ServiceSettings

config_option = config_option_of(DEFAULT_PATH, PATH_VARIABLE, "The registry's")


def read_or_exit(config: Path) -> ServiceSettings:
    """The settings of a file, an agent's as well whose registry is inside; prints every fault and exits with USAGE when
    it has any.
    """
    return settings_or_exit(config, load_either)
