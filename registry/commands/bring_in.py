"""`registry import`: cameras out of a TOML file, such as an agent's, into the registry."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import click

from nodeagent.contract.camera import REVEAL
from nodeagent.contract.errors import ConfigError
from nodeagent.infra.commands import print_faults
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.registry_api import RegistryApi, RegistryRefuses
from nodeagent.infra.registry_door import ANSWER_S, Door, door_options, refusal_lines
from registry.commands.camera_file import FileCamera, load_cameras
from registry.commands.showing import json_option
from registry.http.answers_kept import ImportDraft

#: Seconds that a registry has to write many cameras: twenty thousand, on a slow disk.
IMPORT_S: Final = 300.0
#: Cameras named in a line; the others are counted.
NAMED_MOST: Final = 20

_WORDS: Final = {"made": "made", "changed": "changed", "same": "left alone"}

Rows = Mapping[str, Mapping[str, Any]]


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace cameras that are there and differ.")
@door_options
@json_option
def bring_in(door: Door, as_json: bool, file: Path, overwrite: bool) -> None:
    """Write the `[[cameras]]` of FILE into the registry: all of them or none.

    The tables are those of an agent's configuration; each may also have `enabled`, `group` and `labels`, which stay as
    they are in the registry where the file does not say them.  Says what was made, changed and left alone.
    """
    try:
        cameras = load_cameras(file)
    except ConfigError as exc:
        print_faults(file, exc)
        sys.exit(ExitCode.USAGE)
    with door.opened() as api:
        done = _write(api, cameras, overwrite)
    click.echo(json.dumps(done, indent=2) if as_json else "\n".join(_line(*item) for item in done.items()))


def _write(api: RegistryApi, cameras: Sequence[FileCamera], overwrite: bool) -> dict[str, list[str]]:
    """Write them; returns which were made, changed and left alone."""
    before = _rows(api, cameras)
    drafts = tuple(
        camera.beside(before[camera.camera_id]) if camera.camera_id in before else camera.draft for camera in cameras
    )
    body = ImportDraft.model_construct(cameras=drafts, overwrite=overwrite).model_dump_json(context=REVEAL).encode()
    try:
        api.ask("POST", "import", body=body, read_s=IMPORT_S)
    except RegistryRefuses as exc:
        if exc.status != HTTPStatus.CONFLICT or overwrite:
            raise
        hint = "nothing was written; --overwrite replaces cameras that are there and differ"
        click.echo("\n".join([*refusal_lines(exc), hint]), err=True)
        sys.exit(ExitCode.PROBLEMS)
    # By their versions and not by what was answered: the first of two registries may have written it without an answer.
    after = _rows(api, cameras)
    done: dict[str, list[str]] = {"made": [], "changed": [], "same": []}
    for camera_id in sorted(camera.camera_id for camera in cameras):
        done[_fate(before.get(camera_id), after.get(camera_id))].append(camera_id)
    return done


def _fate(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    if before is None:
        return "made"
    return "changed" if after is None or after["version"] != before["version"] else "same"


def _rows(api: RegistryApi, cameras: Sequence[FileCamera]) -> Rows:
    """The registry's rows of these cameras."""
    wanted = {camera.camera_id for camera in cameras}
    return {row["camera_id"]: row for row in api.rows("cameras", read_s=ANSWER_S) if row.get("camera_id") in wanted}


def _line(fate: str, camera_ids: Sequence[str]) -> str:
    named, more = ", ".join(camera_ids[:NAMED_MOST]), len(camera_ids) - NAMED_MOST
    rest = f" and {more} more" if more > 0 else ""
    return f"{_WORDS[fate]}: {len(camera_ids)}" + (f" ({named}{rest})" if named else "")
