"""`registry move`, `drain`, `undrain`, `forget` and `thaw`: what people order of the registries.

All of them may be given twice.  The registry that leads carries them out; another one says so, and the next is asked.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

import click

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import Owner
from nodeagent.infra.cluster_answers import LOST, UNTOLD, NodeSeen, node_seen
from nodeagent.infra.cluster_view import drain_words
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.registry_api import RegistryApi
from nodeagent.infra.registry_door import ANSWER_S, Door, door_options
from registry.commands.showing import json_option, name, read_as
from registry.http.answers_live import Thawed

#: Seconds between two looks at a node that drains.
LOOK_EVERY_S: Final = 1.0


@click.command()
@click.argument("camera", callback=name)
@click.argument("node", callback=name)
@door_options
@json_option
def move(door: Door, as_json: bool, camera: str, node: str) -> None:
    """Give CAMERA to NODE by hand."""
    with door.opened() as api:
        document = _order(api, "POST", f"cameras/{camera}/move", {"node_id": node})
        owner = read_as(Owner, document)
    _told(document, as_json, f"camera {camera} is {owner.node_id}'s, epoch {owner.epoch}")


@click.command()
@click.argument("node", callback=name)
@click.option("--forced", is_flag=True, help="Although the other nodes lack capacity: cameras may be left without one.")
@click.option("--wait", is_flag=True, help="Return when others capture all of its cameras and nothing waits on it.")
@door_options
@json_option
def drain(door: Door, as_json: bool, node: str, forced: bool, wait: bool) -> None:
    """Let NODE hand its cameras over, each when another node captures it; it gets no more until `undrain`.

    Refused while the other nodes lack capacity, and where nodes take cameras by themselves (strategy `claim`).
    `--wait` ends with status 1 when it cannot be known that nothing waits.  Ctrl-C ends `--wait`, not the drain.
    """
    with door.opened() as api:
        document = _order(api, "POST", f"nodes/{node}/drain", {"forced": forced})
        if wait:
            document = _until_empty(api, document)
    _told(document, as_json, _state_of(node_seen(document)))


@click.command()
@click.argument("node", callback=name)
@door_options
@json_option
def undrain(door: Door, as_json: bool, node: str) -> None:
    """Take the order to drain NODE back; harmless when there is none."""
    with door.opened() as api:
        document = _order(api, "DELETE", f"nodes/{node}/drain")
        seen = node_seen(document)
    _told(document, as_json, f"node {node} is {seen.phase}, with {seen.owns} camera{'s' if seen.owns != 1 else ''}")


@click.command()
@click.argument("node", callback=name)
@door_options
def forget(door: Door, node: str) -> None:
    """Forget NODE, which is dead and gone for good; one that reports again is known again."""
    with door.opened() as api:
        api.ask("DELETE", f"nodes/{node}", read_s=ANSWER_S)
    click.echo(f"node {node} is forgotten")


@click.command()
@door_options
@json_option
def thaw(door: Door, as_json: bool) -> None:
    """End a freeze of evictions: nodes that are silent now lose their cameras to others.

    Evictions are held when many nodes fall silent together: then it is most likely the registry that cannot hear.
    Whoever knows that the nodes are really gone ends it with this command.
    """
    with door.opened() as api:
        document = _order(api, "POST", "thaw")
        thawed = read_as(Thawed, document)
    done = f"evictions go on; they were held: {thawed.reason}"
    _told(document, as_json, done if thawed.thawed else "evictions were not held")


def _order(api: RegistryApi, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    sent = None if body is None else json.dumps(body).encode()
    return api.document(method, path, body=sent, read_s=ANSWER_S)


def _told(document: dict[str, Any], as_json: bool, sentence: str) -> None:
    click.echo(json.dumps(document, indent=2) if as_json else sentence)


def _state_of(node: NodeSeen) -> str:
    """How far a drain is, in a sentence."""
    if node.drain is None:
        return f"node {node.node_id} does not drain"
    trouble = f"; {node.drain.trouble}" if node.drain.trouble else ""
    return f"node {node.node_id} {drain_words(node)}{trouble}"


def _until_empty(api: RegistryApi, document: dict[str, Any]) -> dict[str, Any]:
    """Wait until nothing is left on a node, and say on standard error how far it is; returns the last answer.

    Ends the command with PROBLEMS when it cannot be known that nothing is left, when somebody takes the order back, or
    at Ctrl-C.
    """
    said = ""
    while True:
        node = node_seen(document)
        if node.drain is None:
            click.echo(f"the order to drain node {node.node_id} was taken back", err=True)
            sys.exit(ExitCode.PROBLEMS)
        if node.drain.done:
            return document
        said = _say(_state_of(node), said)
        if node.drain.state in (LOST, UNTOLD):
            sys.exit(ExitCode.PROBLEMS)
        try:
            time.sleep(LOOK_EVERY_S)
            document = api.document("GET", f"nodes/{node.node_id}", read_s=ANSWER_S).get("node") or {}
        except Unavailable as exc:
            # Registries come back, and the nodes go on meanwhile.
            said = _say(f"waiting: {exc}", said)
        except KeyboardInterrupt:
            click.echo(f"the drain goes on; `registry undrain {node.node_id}` ends it", err=True)
            sys.exit(ExitCode.PROBLEMS)


def _say(sentence: str, before: str) -> str:
    if sentence != before:
        click.echo(sentence, err=True)
    return sentence
