"""The OpenAPI document: what FastAPI finds in the routes, and what their dependencies know that it cannot see.

That is who may call a route (`parts.Allowed`), what its body is (`body.JsonBody`), and how every error looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from nodeagent.infra.web.problems import MEDIA_TYPE
from registry.http.body import JsonBody
from registry.http.parts import Allowed, AnyCaller, least_role

_ABOUT: Final = (
    "Cameras, nodes and which node serves which camera.  Show a token: `Authorization: Bearer nreg_...`."
    "  What is read has an `ETag`; who changes it sends that back as `If-Match`.  Every error is"
    " `application/problem+json` (RFC 9457) and names the field."
)
#: Schema of every error.
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence; names the first field that is wrong."},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_CONTENT: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
#: Errors that a route answers with, and what each means.
_ALWAYS: Final = {"422": "A field is not as expected.", "503": "Something is away, or another registry leads."}
_KNOWN: Final = {"401": "No token, or none that is known.", "403": "The token may not."}
_NAMED: Final = {"404": "There is no such thing.", "409": "It contradicts what is there."}
_CONDITIONAL: Final = {"412": "Another version is there.", "428": "The condition is missing."}
_WITH_BODY: Final = {"408": "The body came too slowly.", "413": "The body is too large."}


def document(routers: Iterable[APIRouter], version: str) -> dict[str, Any]:
    """The document of these routers' routes."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    made = get_openapi(title="nodeagent registry", version=version, description=_ABOUT, routes=routes)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for route in routes:
        for method in route.methods or ():
            _complete(made["paths"][route.path_format][method.lower()], route, schemas)
    return made


def _complete(operation: dict[str, Any], route: APIRoute, schemas: dict[str, Any]) -> None:
    """Add to one operation what its dependencies know."""
    errors = dict(_ALWAYS)
    if "{" in route.path_format or (route.methods or set()) & {"POST", "PUT", "DELETE"}:
        errors |= _NAMED
    if any(one["name"].lower() == "if-match" for one in operation.get("parameters", ())):
        errors |= _CONDITIONAL
    for call in _calls(route.dependant):
        if isinstance(call, JsonBody):
            errors |= _WITH_BODY
            content = {"application/json": {"schema": _body(call, schemas)}}
            operation["requestBody"] = {"required": True, "content": content}
        elif isinstance(call, Allowed | AnyCaller):
            errors |= _KNOWN
            operation["security"] = [{"token": []}]
            operation["x-needs"] = _needs(call)
    for status, meaning in errors.items():
        if status == "503" and status in operation["responses"]:
            continue
        operation["responses"][status] = {"description": meaning, "content": _CONTENT}


def _calls(dependant: Dependant) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def _needs(call: Allowed | AnyCaller) -> str:
    """Who may, in words."""
    if isinstance(call, AnyCaller):
        return "any token"
    role = least_role(call.deed)
    return "the node's token" if role is None else role.value


def _body(body: JsonBody, schemas: dict[str, Any]) -> dict[str, Any]:
    """Schema of a body; models inside it are put among the others, under names that FastAPI gives none of its own."""
    schema = body.adapter.json_schema(ref_template="#/components/schemas/{model}-Input")
    for name, inner in schema.pop("$defs", {}).items():
        schemas[f"{name}-Input"] = inner
    return schema
