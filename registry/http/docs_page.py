"""The page at `/docs`: the OpenAPI document for people.

Made here and not by a script from elsewhere: sites are cut off from the Internet, and a page beside which somebody
types a token must not load anybody's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape


@dataclass(frozen=True, slots=True)
class _Operation:
    """One route as the page shows it."""

    method: str
    path: str
    summary: str
    needs: str
    parameters: list[dict[str, str]]
    body: str
    answers: list[tuple[str, str]]


def page(document: dict[str, Any]) -> str:
    """The page of a document, as HTML without any script."""
    loader = PackageLoader("registry", "http")
    template = Environment(loader=loader, autoescape=select_autoescape()).get_template("docs.html")
    groups: dict[str, list[_Operation]] = {}
    for tag, operation in _operations(document):
        groups.setdefault(tag, []).append(operation)
    models = {name: _fields(schema) for name, schema in sorted(document["components"]["schemas"].items())}
    return template.render(info=document["info"], groups=groups, models=models)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, _Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            yield (
                (operation.get("tags") or ["other"])[0],
                _Operation(
                    method=method.upper(),
                    path=path,
                    summary=operation.get("description") or operation.get("summary", ""),
                    needs=operation.get("x-needs", "nothing"),
                    parameters=[_parameter(one) for one in operation.get("parameters", ())],
                    body=_kind(body),
                    answers=[(status, _answer(answer)) for status, answer in sorted(operation["responses"].items())],
                ),
            )


def _parameter(one: dict[str, Any]) -> dict[str, str]:
    need = "" if one.get("required") else ", may be left out"
    return {
        "name": one["name"],
        "kind": f"{one['in']}, {_kind(one.get('schema', {}))}{need}",
        "about": one.get("description", ""),
    }


def _answer(answer: dict[str, Any]) -> str:
    contents = answer.get("content", {}).values()
    schema: dict[str, Any] = next((content.get("schema", {}) for content in contents), {})
    return f"{_kind(schema)}: {answer['description']}" if schema else str(answer["description"])


def _fields(schema: dict[str, Any]) -> list[tuple[str, str]]:
    needed = schema.get("required", ())
    return [
        (name, _kind(inner) + ("" if name in needed else ", may be left out"))
        for name, inner in schema.get("properties", {}).items()
    ]


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for among in ("anyOf", "oneOf"):
        if among in schema:
            return " or ".join(_kind(one) for one in schema[among])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"table of {_kind(schema['additionalProperties'])}"
    return str(schema.get("title") if schema.get("properties") else schema.get("type", ""))
