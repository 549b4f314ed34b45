"""`registry probe`: what a camera answers, as a node sees it."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click

from nodeagent.contract.probe import StreamAnswer
from nodeagent.contract.states import State
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.registry_door import Door, door_options
from registry.commands.showing import json_option, name, read_as

#: Seconds that a registry has for its answer: a node looks for half of that.
PROBE_S: Final = 40.0


@click.command()
@click.argument("camera", callback=name)
@door_options
@json_option
def probe(door: Door, as_json: bool, camera: str) -> None:
    """Have the node of CAMERA, or one with its labels, open its streams, and say what they answer.

    Exit code: 0 pictures come from all of them, 1 they do not, or nobody could look.
    """
    with door.opened() as api:
        found = api.document("POST", f"cameras/{camera}/probe", read_s=PROBE_S)
        answers = [read_as(StreamAnswer, each) for each in found.get("streams", [])]
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found, answers)))
    well = answers and all(answer.state is State.CAPTURING for answer in answers)
    sys.exit(ExitCode.OK if well else ExitCode.PROBLEMS)


def _lines(found: dict[str, Any], answers: list[StreamAnswer]) -> list[str]:
    return [f"{found.get('camera_id')}, as {found.get('node_id')} sees it:", *(f"  {_line(each)}" for each in answers)]


def _line(answer: StreamAnswer) -> str:
    if answer.state is not State.CAPTURING:
        return f"{answer.stream}: {answer.state}: {answer.detail}"
    parts = [f"{answer.codec} {answer.width}x{answer.height}"]
    parts += [f"{answer.fps:g} pictures per second"] if answer.fps is not None else []
    parts += [f"a key frame every {answer.keyframe_s:g} s"] if answer.keyframe_s is not None else []
    parts += [f"sound {answer.sound}" if answer.sound else "no sound", *([answer.detail] if answer.detail else [])]
    return f"{answer.stream}: {', '.join(parts)}"
