"""The commands that ask a registry over HTTP, run in this process against one that serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from registry.cli import main
from tests.support.registry_http import RegistryServing

#: Wide enough that no cell is folded.
WIDE = {"COLUMNS": "240", "REGISTRY_URL": "", "REGISTRY_TOKEN_FILE": "", "REGISTRY_CA_FILE": ""}


class Person:
    """Somebody with a token, who gives commands to a registry."""

    def __init__(self, serving: RegistryServing, folder: Path, who: str = "admin") -> None:
        self.origin = serving.origin
        self.token_file = folder / f"{who}.token"
        self.token_file.write_text(serving.secrets[who])
        self._secret = serving.secrets[who]

    def run(self, name: str, *arguments: str, expect: int = 0) -> Result:
        """Run `registry NAME ...`, which must end with this exit code."""
        options = ["--url", self.origin, "--token-file", str(self.token_file)]
        done = CliRunner(env=WIDE).invoke(main, [name, *arguments, *options])
        assert done.exit_code == expect, (done.output, done.exception)
        assert self._secret not in done.output
        return done

    def answer(self, name: str, *arguments: str) -> Any:
        """What it prints with `--json`."""
        return json.loads(self.run(name, *arguments, "--json").stdout)
