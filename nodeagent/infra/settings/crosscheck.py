"""Faults that lie between fields: names that stand twice, references that lead nowhere, limits that contradict.

Pure.  It looks at the document before the models have accepted it, so that one reading names every fault of the file;
what has the wrong shape is passed over here and named by the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nodeagent.contract.camera import DEFAULT_CLASS
from nodeagent.contract.errors import Fault
from nodeagent.contract.kept import why_no_name, why_no_url

#: Lists of tables, with the key that must differ between their items.
_UNIQUE = (
    ("cameras", "camera_id"),
    ("calendars", "name"),
    ("models", "name"),
    ("push", "name"),
    ("pool", "path"),
    ("retention", "name"),
    ("peers", "node_id"),
)
#: What a `[registry]` says of registries elsewhere.
_ELSEWHERE = ("urls", "token", "token_file", "ca_file")


def cross_faults(doc: dict[str, Any]) -> list[Fault]:
    """Every fault between fields of a configuration document, in the file's order."""
    faults = [fault for section, key in _UNIQUE for fault in _twice(section, key, _tables(doc.get(section)))]
    faults += _models(doc)
    faults += _classes(doc)
    return [*faults, *_rules(doc), *_endpoint(doc), *_registry(doc), *_limits(doc)]


def camera_faults(doc: dict[str, Any]) -> list[Fault]:
    """Faults between fields of the cameras alone, for a document that need not name models and classes."""
    names = [fault for section, key in _UNIQUE[:2] for fault in _twice(section, key, _tables(doc.get(section)))]
    return [*names, *_rules(doc)]


def _tables(value: Any) -> list[tuple[int, dict[str, Any]]]:
    """The tables of a list with their indices."""
    return [(i, item) for i, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []


def _twice(where: str, key: str, tables: list[tuple[int, dict[str, Any]]]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for i, table in tables:
        name = table.get(key)
        if isinstance(name, str) and first.setdefault(name, i) != i:
            yield Fault(f"{where}[{i}].{key}", f"taken by {where}[{first[name]}]; expected another", repr(name))


def _rules(doc: dict[str, Any]) -> Iterator[Fault]:
    for i, camera in _tables(doc.get("cameras")):
        rules = _tables(camera.get("rules"))
        yield from _twice(f"cameras[{i}].rules", "rule_id", rules)
        for j, rule in rules:
            for places in ("zones", "lines"):
                yield from _twice(f"cameras[{i}].rules[{j}].{places}", "name", _tables(rule.get(places)))


def _models(doc: dict[str, Any]) -> Iterator[Fault]:
    known = [model["name"] for _, model in _tables(doc.get("models")) if isinstance(model.get("name"), str)]
    cameras = _tables(doc.get("cameras"))
    if cameras and doc.get("models", []) == []:
        yield Fault("models", "the cameras need at least one [[models]]")
    for i, camera in cameras:
        name = camera.get("model")
        if isinstance(name, str) and name and name not in known:
            yield Fault(
                f"cameras[{i}].model", f"expected one of {sorted(known)}, the names under [[models]]", repr(name)
            )


def _endpoint(doc: dict[str, Any]) -> Iterator[Fault]:
    endpoint = doc.get("endpoint")
    if not isinstance(endpoint, dict):
        return
    yield from _twice("endpoint.tokens", "name", _tables(endpoint.get("tokens")))
    for given, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if given in endpoint and other not in endpoint:
            yield Fault(f"endpoint.{other}", f"required with {given}, but missing")


def _registry(doc: dict[str, Any]) -> Iterator[Fault]:
    registry = doc.get("registry")
    if not isinstance(registry, dict):
        return
    inside, has_cameras = registry.get("inside") is True, bool(_tables(doc.get("cameras")))
    # With cameras in the file `_models` says it.
    if doc.get("models", []) == [] and not (inside and has_cameras):
        yield Fault("models", "the cameras of a registry need at least one [[models]]")
    if inside:
        given = [key for key in _ELSEWHERE if registry.get(key)]
        yield from (Fault(f"registry.{key}", "expected none with inside = true: the agent makes it") for key in given)
        yield from _not_kept(doc)
        return
    if has_cameras:
        yield Fault("cameras", "expected none beside [registry], which knows the cameras")
    yield from _registries_elsewhere(registry)


def _not_kept(doc: dict[str, Any]) -> Iterator[Fault]:
    """What the registry inside could not take over: the camera would be captured, and stopped as one of nobody's."""
    for i, camera in _tables(doc.get("cameras")):
        name = camera.get("name")
        if isinstance(name, str) and (why := why_no_name(name)):
            yield Fault(f"cameras[{i}].name", why)
        for stream in ("record", "analyse"):
            given = camera.get(stream)
            url = given.get("url") if isinstance(given, dict) else None
            if isinstance(url, str) and (why := why_no_url(url)):
                yield Fault(f"cameras[{i}].{stream}.url", why)


def _registries_elsewhere(registry: dict[str, Any]) -> Iterator[Fault]:
    if "listen" in registry:
        yield Fault("registry.listen", "expected only with inside = true")
    if registry.get("urls", []) == []:
        yield Fault("registry.urls", "required, or inside = true, but missing")
    if "token" not in registry and "token_file" not in registry:
        yield Fault("registry.token", "required, or token_file, but missing")
    if "token" in registry and "token_file" in registry:
        yield Fault("registry.token_file", "expected only one of token and token_file")


def _classes(doc: dict[str, Any]) -> Iterator[Fault]:
    given = [section["name"] for _, section in _tables(doc.get("retention")) if isinstance(section.get("name"), str)]
    known = sorted({*given, DEFAULT_CLASS})
    for i, camera in _tables(doc.get("cameras")):
        name = camera.get("retention")
        if isinstance(name, str) and name and name not in known:
            yield Fault(
                f"cameras[{i}].retention", f"expected one of {known}, the names under [[retention]]", repr(name)
            )


def _limits(doc: dict[str, Any]) -> Iterator[Fault]:
    capture = doc.get("capture")
    if isinstance(capture, dict):
        least, most = capture.get("reconnect_min_s", 0.5), capture.get("reconnect_max_s", 15.0)
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield Fault("capture.reconnect_max_s", f"expected at least reconnect_min_s, {least}", repr(most))
    alarm = doc.get("alarm")
    if isinstance(alarm, dict) and alarm.get("replay_before_s") == 0 and alarm.get("replay_after_s") == 0:
        yield Fault(
            "alarm.replay_after_s", "expected more than 0 when replay_before_s is 0: a replay has a length", "0"
        )
