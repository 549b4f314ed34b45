"""Turns what pydantic says of a document into faults that a person can act on: path, expectation, what stands there.

Pure.  The easy mistake: a value that is quoted may be a secret, also where none belongs (a camera's URL written where a
table was expected), so only values that cannot be one are quoted in full.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from nodeagent.contract.errors import Fault
from nodeagent.contract.rule import Rule

#: Keys whose value never appears in a fault.
SECRET_KEYS: Final = frozenset({"url", "urls", "secret", "password", "token", "tokens"})
#: Longest value quoted in a fault, characters.
QUOTE_MAX: Final = 60

_RULES: Final[tuple[type[BaseModel], ...]] = get_args(get_args(Rule)[0])
#: Kinds of rules.  Pydantic puts them into the location of a fault, where a person's path has none.
RULE_KINDS: Final = tuple(str(rule.model_fields["kind"].default) for rule in _RULES)

_KINDS = " or ".join(f'"{kind}"' for kind in RULE_KINDS)
#: The kinds that have each key of a rule, in words, and the path of a rule.
_KINDS_WITH: Final = {
    key: " or ".join(f'"{rule.model_fields["kind"].default}"' for rule in _RULES if key in rule.model_fields)
    for key in sorted({key for rule in _RULES for key in rule.model_fields})
}
_A_RULE = re.compile(r"\.rules\[\d+\]$")
#: What was expected, by pydantic's type of error; `{}` fields are its context.
_EXPECTED: Final[dict[str, str]] = {
    "missing": "required, but missing",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "multiple_of": "expected a multiple of {multiple_of}",
    "literal_error": "expected {expected}",
    "string_type": "expected text in quotes",
    # The only pattern in use is the one of ids.
    "string_pattern_mismatch": "expected letters, digits, `_`, `.` or `-`, a letter or digit first, at most 63",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "path_type": "expected a path in quotes",
    "tuple_type": "expected a list: [ ... ]",
    "model_type": "expected a table: {{ key = value, ... }}",
    "model_attributes_type": "expected a table: {{ key = value, ... }}",
    "too_short": "expected at least {min_length} items, not {actual_length}",
    "too_long": "expected at most {max_length} items, not {actual_length}",
    "union_tag_invalid": f"expected {_KINDS}",
    "union_tag_not_found": f"required, but missing: {_KINDS}",
}


def faults_of(errors: Iterable[ErrorDetails], root: type[BaseModel]) -> list[Fault]:
    """Faults from pydantic's errors about a document of type `root`.

    Errors that only follow from another one are left out: a list is called too short when one of its items is wrong.
    So are names that stand twice, which `crosscheck` names with a better path.
    """
    kept = [error for error in errors if error["type"] != "names_differ"]
    places = [error["loc"] for error in kept]
    followers = {id(e) for e in kept if e["type"] == "too_short" and any(_inside(loc, e["loc"]) for loc in places)}
    keys = sorted(known_keys(root))
    return [_fault(error, keys) for error in kept if id(error) not in followers]


def known_keys(model: type[BaseModel]) -> set[str]:
    """Every key that a model and the models inside it know."""
    keys = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            keys |= known_keys(inner)
    return keys


def dotted(loc: tuple[int | str, ...]) -> str:
    """A location as a person writes it: `cameras[1].rules[0].zones`."""
    where = ""
    for i, part in enumerate(loc):
        if isinstance(part, int):
            where += f"[{part}]"
        elif not (part in RULE_KINDS and i >= 2 and loc[i - 2] == "rules"):
            where += f".{part}" if where else part
    return where


def quoted(path: str, value: Any) -> str:
    """The value as a fault shows it; empty for tables, lists and what may be a secret."""
    if isinstance(value, dict | list):
        return ""
    if isinstance(value, str) and "://" in value:
        scheme = value.partition("://")[0]
        return f"'{scheme}://...'" if scheme.isalnum() else ""
    if _is_secret(path):
        return ""
    return repr(value)[:QUOTE_MAX]


def _is_secret(path: str) -> bool:
    return path.rpartition(".")[2].partition("[")[0] in SECRET_KEYS


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _inside(loc: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    return len(loc) > len(other) and loc[: len(other)] == other


def _fault(error: ErrorDetails, keys: list[str]) -> Fault:
    path, value, context = dotted(error["loc"]), error.get("input"), error.get("ctx", {})
    special = _SPECIAL.get(error["type"])
    if special:
        return special(path, context, keys)
    expected = _EXPECTED.get(error["type"])
    if expected:
        message = expected.format(**context)
    elif error["type"] == "value_error" and _is_secret(path):
        # Somebody's ValueError, which may quote what it was given.
        message = "expected another value"
    else:
        message = error["msg"].removeprefix("Value error, ")
    return Fault(path or "the file", message, "" if error["type"] == "missing" else quoted(path, value))


def _unknown_key(path: str, _context: dict[str, Any], keys: list[str]) -> Fault:
    table, _, key = path.rpartition(".")
    if _A_RULE.search(table) and key in _KINDS_WITH:
        return Fault(path, f"no key of this kind of rule, but of {_KINDS_WITH[key]}")
    if key in keys:
        return Fault(path, "unknown key: it belongs into another table")
    near = difflib.get_close_matches(key, keys, n=1)
    return Fault(path, f"unknown key; did you mean {near[0]}?" if near else "unknown key")


def _bad_kind(path: str, context: dict[str, Any], _keys: list[str]) -> Fault:
    return Fault(f"{path}.kind", _EXPECTED["union_tag_invalid"], repr(context["tag"])[:QUOTE_MAX])


def _no_kind(path: str, _context: dict[str, Any], _keys: list[str]) -> Fault:
    return Fault(f"{path}.kind", _EXPECTED["union_tag_not_found"])


#: Errors whose path or message needs more than a template.
_SPECIAL: Final[dict[str, Callable[[str, dict[str, Any], list[str]], Fault]]] = {
    "extra_forbidden": _unknown_key,
    "union_tag_invalid": _bad_kind,
    "union_tag_not_found": _no_kind,
}
