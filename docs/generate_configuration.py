"""Writes what the docs say of configuration, states, exit codes, queues and decisions from the code itself.

`docs/configuration.md` is made whole from the `#:` lines of the settings; in `docs/operations.md`, `docs/bus.md` and
`docs/adr/README.md` the parts between `<!-- begin NAME -->` and `<!-- end NAME -->`.  With `--check` nothing is
written and the exit code says whether all are up to date; a test and `make check` run that.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nodeagent.contract.camera import CameraSpec, StreamSpec
from nodeagent.contract.geometry import Line, Zone
from nodeagent.contract.ids import ID_PATTERN
from nodeagent.contract.report import Phase
from nodeagent.contract.rule import Rule, RuleBase, ZoneRule
from nodeagent.contract.schedule import Schedule
from nodeagent.contract.states import MEANING
from nodeagent.inference.description import InputDescription, ModelDescription, OutputDescription
from nodeagent.infra.bus.rabbitmq_layout import Layout, Queue, layout
from nodeagent.infra.bus.topology import Node
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.gaps import GapReason
from nodeagent.infra.settings.endpoint import TokenSettings
from nodeagent.infra.settings.registry import CapacitySettings
from nodeagent.infra.settings.sections import Settings
from registry.settings import ServiceSettings

DOCS = Path(__file__).resolve().parent
#: Tables whose heading is not their place in the settings.
NESTED: tuple[tuple[str, type[BaseModel], type[BaseModel] | None], ...] = (
    ("[[endpoint.tokens]]", TokenSettings, None),
    ("[registry.capacity]", CapacitySettings, None),
    ("[[cameras]]", CameraSpec, None),
    ("cameras.record, cameras.analyse", StreamSpec, None),
    ("[[cameras.rules]], every kind", RuleBase, None),
    ("[[cameras.rules]], every kind with zones", ZoneRule, RuleBase),
    *(
        (
            f'[[cameras.rules]], kind = "{model.model_fields["kind"].default}"',
            model,
            ZoneRule if issubclass(model, ZoneRule) else RuleBase,
        )
        for model in get_args(get_args(Rule)[0])
    ),
    ("cameras.rules.zones, cameras.rules.exclude", Zone, None),
    ("cameras.rules.lines", Line, None),
    ("cameras.rules.schedule", Schedule, None),
)
MODEL_FILE: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file itself", ModelDescription),
    ("[input]", InputDescription),
    ("[output]", OutputDescription),
)

INTRODUCTION = """# Configuration

<!-- Made by docs/generate_configuration.py from the code; edit the `#:` lines there. -->

One TOML file, by default `/etc/nodeagent/nodeagent.toml`; another is named by `-c FILE` or by `NODEAGENT_CONFIG`.
[etc/nodeagent.toml](../etc/nodeagent.toml) is a whole example with RabbitMQ and MySQL,
[etc/embedded.toml](../etc/embedded.toml) one without any server.

- `nodeagent config check FILE` names every fault, each with its path, what stands there and what was expected, and
  looks whether models load and videos exist. `nodeagent config show` prints what is in force, defaults filled in,
  secrets hidden.
- An unknown key is a fault: it is a spelling mistake. Numbers stand without quotes.
- Relative paths are relative to the file.
- Names (`node_id`, `camera_id`, `rule_id`, a model's, target's or token's `name`) are letters, digits, `_`, `.` and
  `-`, a letter or digit first, at most 63.
- Coordinates are fractions of the picture, `[x, y]`, x to the right, y down, both in [0, 1].
- A running agent reads the file again at `systemctl reload nodeagent` (HUP). Cameras, streams and rules that
  changed are taken over; all else in the file needs a restart. A faulty file changes nothing.
- Secrets (`url`, `secret`, `token`) never appear in logs, status or messages. Keep the file readable for
  the agent's user only, as [operations.md](operations.md) installs it.
"""

REGISTRY = """# The registry's configuration

A TOML file of its own, by default `/etc/nodeagent/registry.toml`; another is named by `-c FILE` or by
`REGISTRY_CONFIG`. [etc/registry.toml](../etc/registry.toml) is a whole example. What is said above of unknown keys,
relative paths, names and secrets holds for it too; it is read at the start only.
"""


def comments(model: type[BaseModel]) -> dict[str, str]:
    """The `#:` text above each field of a model, its bases included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (isinstance(cls, type) and issubclass(cls, BaseModel)) or cls.__module__.startswith("pydantic"):
            continue
        lines = inspect.getsource(cls).splitlines()
        body = ast.parse("\n".join(lines)).body[0]
        for node in body.body if isinstance(body, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = _above(lines, node.lineno - 1)
                if text:
                    found[node.target.id] = text
    return found


def _above(lines: list[str], at: int) -> str:
    taken: list[str] = []
    while at > 0 and lines[at - 1].strip().startswith("#:"):
        at -= 1
        taken.insert(0, lines[at].strip().removeprefix("#:").strip())
    return " ".join(" ".join(taken).split())


def _parts(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def kind_of(field: FieldInfo) -> str:
    """The type of a field in a person's words."""
    words = [_word(part, field) for part in _parts(field.annotation) if part is not type(None)]
    return " or ".join(dict.fromkeys(words))


def _word(annotation: Any, field: FieldInfo) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if str(origin) == "typing.Literal":
        return " or ".join(f'`"{value}"`' for value in arguments)
    if origin is dict:
        return "table of names"
    if origin is tuple:
        return _list_word(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    if annotation is str and any(getattr(part, "pattern", "") == ID_PATTERN for part in field.metadata):
        return "name"
    if annotation is SecretStr:
        return "text, secret"
    return {float: "number", int: "whole number", bool: "switch", Path: "path"}.get(annotation, "text")


def _list_word(inner: Any) -> str:
    if get_origin(inner) is tuple:
        return "list of points"
    if inner is SecretStr:
        return "list of texts, secret"
    return "list of texts" if inner is str or get_args(inner)[:1] == (str,) else "list of tables"


def limits_of(field: FieldInfo) -> str:
    """Bounds of a field, as `>= 1, <= 600`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
    names = {"min_length": "at least {} items", "max_length": "at most {} items"}
    found = []
    for part in field.metadata:
        found += [f"{sign} {_number(getattr(part, name))}" for name, sign in signs.items() if _has(part, name)]
        if get_origin(field.annotation) is tuple:
            found += [text.format(getattr(part, name)) for name, text in names.items() if _has(part, name)]
    return ", ".join(found)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _has(part: Any, name: str) -> bool:
    return isinstance(getattr(part, name, None), int | float)


def default_of(field: FieldInfo) -> str:
    """The default as TOML, `required`, or empty when the text says it."""
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel):
        return ""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[]`"
    return f'`"{value}"`' if isinstance(value, str | Path) else f"`{_number(value)}`"


def table(model: type[BaseModel], without: type[BaseModel] | None = None) -> list[str]:
    """Markdown rows of a model's keys, but those that it has as `without` has them."""
    said = comments(model)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    hidden = set(without.model_fields) - set(model.__annotations__) if without else set()
    for name, field in model.model_fields.items():
        if name in hidden:
            continue
        if name not in said and section_model(field):
            said[name] = f"See `[{name}]`."
        if name not in said:
            raise SystemExit(f"{model.__name__}.{name} has no `#:` line")
        kind = ", ".join(part for part in (kind_of(field), limits_of(field)) if part)
        meaning = said[name].replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | {default_of(field)} | {meaning} |")
    return rows


def section_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model of one of the file's sections."""
    found = [part for part in _models(field.annotation) if part is not CameraSpec]
    return found[0] if found else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def configuration() -> str:
    """The whole of docs/configuration.md."""
    lines = [INTRODUCTION]
    for name, field in Settings.model_fields.items():
        model = section_model(field)
        if model is None:
            continue
        heading = f"[[{name}]]" if get_origin(field.annotation) is tuple else f"[{name}]"
        lines += [f"## `{heading}`", "", _first_sentence(model), "", *table(model), ""]
    for heading, model, without in NESTED:
        lines += [f"## `{heading}`", "", _first_sentence(model), "", *table(model, without), ""]
    lines += ["## A model's own TOML", "", "Named by `file` of `[[models]]`; lies beside its ONNX file.", ""]
    for heading, model in MODEL_FILE:
        lines += [f"### `{heading}`" if heading[0] == "[" else f"### {heading}", "", *table(model), ""]
    lines += [REGISTRY]
    said = comments(ServiceSettings)
    for name, field in ServiceSettings.model_fields.items():
        model = section_model(field)
        if model is not None:
            # What the agents' file has too is said anew where it means something else here.
            lines += [f"## Registry: `[{name}]`", "", said.get(name) or _first_sentence(model), "", *table(model), ""]
    return "\n".join(lines).rstrip() + "\n"


def _first_sentence(model: type[BaseModel]) -> str:
    text = " ".join(inspect.getdoc(model).split()) if model.__doc__ else ""  # type: ignore[union-attr]
    text = re.sub(r"^`\[.*?\]`: ", "", text)
    return text[:1].upper() + text[1:]


def states() -> str:
    """Table of every state."""
    rows = ["| state | problem | what to do |", "|---|---|---|"]
    rows += [f"| `{state}` | {'yes' if m.problem else ''} | {m.hint} |" for state, m in MEANING.items()]
    return "\n".join(rows)


def explained(enumeration: type, heading: str) -> str:
    """Table of every member of an enumeration, with the `#:` text above it."""
    lines = inspect.getsource(enumeration).splitlines()
    rows = [f"| {heading} | meaning |", "|---|---|"]
    for at, line in enumerate(lines):
        assigned = re.match(r'\s+[A-Z_]+ = "?(\w+)"?$', line)
        if assigned:
            text = _above(lines, at)
            if not text:
                raise SystemExit(f"{enumeration.__name__}: {assigned[1]} has no `#:` line")
            value = assigned[1] if assigned[1].isdigit() else f"`{assigned[1]}`"
            rows.append(f"| {value} | {text} |")
    return "\n".join(rows)


def decisions() -> str:
    """List of the ADRs, by their headings."""
    found = sorted(path for path in (DOCS / "adr").glob("[0-9]*.md") if not path.name.startswith("0000"))
    return "\n".join(f"- [{_title(path)}]({path.name})" for path in found)


def _title(path: Path) -> str:
    return path.read_text().splitlines()[0].removeprefix("#").strip()


def queues(made: Layout) -> str:
    """Table of every queue of a node."""
    rows = ["| queue | fed by | holds at most | expires after | then goes to |", "|---|---|---|---|---|"]
    for queue in sorted(made.queues, key=lambda queue: queue.name):
        fed = [
            f"`{b.exchange}` {f'`{b.key}`' if b.key else ''}".rstrip() for b in made.bindings if b.queue == queue.name
        ]
        if queue.name.startswith(("clips.<", "detections.<")):
            fed.insert(0, f"`{queue.name.split('.')[0]}`, key of each camera")
        rows.append(f"| `{queue.name}` | {'; '.join(fed)} | {queue.arguments['x-max-length']} | {_fate(queue)} |")
    return "\n".join(rows)


def _fate(queue: Queue) -> str:
    expires_ms, target = queue.arguments.get("x-message-ttl"), queue.arguments.get("x-dead-letter-exchange")
    after = f"{int(expires_ms) // 1000} s" if expires_ms else "never"
    if not expires_ms:
        # Brokers from 4.0 on limit deliveries; what they give up goes there too.
        target = f"{queue.arguments['x-dead-letter-routing-key']}` (given back too often" if target else None
        return f"{after} | `{target})" if target else f"{after} | "
    return f"{after} | `{target}`"


def exchanges(made: Layout) -> str:
    """Table of every exchange."""
    rows = ["| exchange | type | what no queue takes goes to |", "|---|---|---|"]
    for exchange in sorted(made.exchanges, key=lambda exchange: exchange.name):
        other = exchange.arguments.get("alternate-exchange")
        rows.append(f"| `{exchange.name}` | {exchange.type} | {f'`{other}`' if other else 'back to the publisher'} |")
    return "\n".join(rows)


def between(text: str, name: str, content: str) -> str:
    """The text with the part between the markers of `name` replaced."""
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"no markers for {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def wanted() -> dict[Path, str]:
    """What each generated file should hold."""
    made = layout(Node("<node>"))
    parts = {
        "operations.md": {
            "states": states(),
            "phases": explained(Phase, "phase"),
            "exit codes": explained(ExitCode, "code"),
            "gap reasons": explained(GapReason, "reason"),
        },
        "bus.md": {"queues": queues(made), "exchanges": exchanges(made)},
        "adr/README.md": {"decisions": decisions()},
    }
    pages = {DOCS / "configuration.md": configuration()}
    for name, contents in parts.items():
        text = (DOCS / name).read_text()
        for marker, content in contents.items():
            text = between(text, marker, content)
        pages[DOCS / name] = text
    return pages


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` say which are out of date."""
    stale = [(path, text) for path, text in wanted().items() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if "--check" in arguments:
            print(f"{path.relative_to(DOCS.parent)} is out of date: run python docs/{Path(__file__).name}")
        else:
            path.write_text(text)
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
