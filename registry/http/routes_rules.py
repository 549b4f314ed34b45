"""Routes of a camera's rules, and of parameters of algorithms; both keep every version."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.rule import Rule
from nodeagent.infra.web.problems import Problem
from registry.http.answers_kept import (
    Algorithm,
    AlgorithmDraft,
    Algorithms,
    RuleChange,
    RuleHistory,
    RuleKept,
    Rules,
)
from registry.http.body import JsonBody
from registry.http.paging import ROWS, After, Below, Limit, next_part
from registry.http.parts import PREFIX, AlgorithmPath, Allowed, CameraPath, Parts, PartsHere, Reader, RulePath, private
from registry.http.ports import Contradicted
from registry.http.problems import wrong
from registry.http.versions import Seen, SeenOrNew, tagged
from registry.store.errors import Unknown
from registry.store.rules import rule_history
from registry.tokens import Bearer, Deed

#: Times that a camera is read until nobody changed it between the reads.
READS_MOST: Final = 5

Changer = Annotated[Bearer, Depends(Allowed(Deed.CHANGE_RULE))]
RuleBody = Annotated[Rule, Depends(JsonBody(Rule, root=CameraSpec))]
Parameters = Annotated[AlgorithmDraft, Depends(JsonBody(AlgorithmDraft))]

router = APIRouter(prefix=PREFIX, dependencies=[Depends(private)], tags=["rules and algorithms"])


@router.get("/cameras/{camera_id}/rules")
def rules(parts: PartsHere, _caller: Reader, camera_id: CameraPath) -> Rules:
    """All rules of a camera, each with its version."""
    for _ in range(READS_MOST):
        before = parts.cameras.get(camera_id)
        versions = parts.cameras.rule_versions(camera_id)
        after = parts.cameras.get(camera_id)
        if before.version == after.version:
            kept = (RuleKept(version=versions[one.rule_id], rule=one) for one in after.spec.rules)
            return Rules(camera_id=camera_id, rules=tuple(kept))
    raise Contradicted(f"camera {camera_id} is being changed: ask again")


@router.get("/cameras/{camera_id}/rules/{rule_id}")
def rule(parts: PartsHere, _caller: Reader, camera_id: CameraPath, rule_id: RulePath, response: Response) -> RuleKept:
    """One rule."""
    kept = _newest(parts, camera_id, rule_id)
    tagged(response, kept.version)
    return kept


@router.put("/cameras/{camera_id}/rules/{rule_id}")
def put_rule(
    parts: PartsHere,
    caller: Changer,
    camera_id: CameraPath,
    rule_id: RulePath,
    seen: SeenOrNew,
    wanted: RuleBody,
    response: Response,
) -> RuleKept:
    """Make a rule (`If-None-Match: *`) or replace it (`If-Match`, the version of the rule)."""
    if wanted.rule_id != rule_id:
        raise wrong("rule_id", "expected the rule of the address")
    parts.cameras.put_rule(camera_id, wanted, seen, parts.writer(caller))
    parts.core.changed([camera_id])
    kept = _newest(parts, camera_id, rule_id)
    tagged(response, kept.version)
    return kept


@router.delete("/cameras/{camera_id}/rules/{rule_id}", status_code=HTTPStatus.NO_CONTENT)
def delete_rule(parts: PartsHere, caller: Changer, camera_id: CameraPath, rule_id: RulePath, seen: Seen) -> None:
    """Take a rule out of its camera; its versions stay in the history."""
    parts.cameras.take_out_rule(camera_id, rule_id, seen, parts.writer(caller))
    parts.core.changed([camera_id])


@router.get("/cameras/{camera_id}/rules/{rule_id}/history")
def history_of_rule(
    parts: PartsHere, _caller: Reader, camera_id: CameraPath, rule_id: RulePath, limit: Limit = ROWS
) -> RuleHistory:
    """The newest versions of a rule, newest first; one that was taken out has some too."""
    found = rule_history(parts.engine, camera_id, rule_id, limit)
    if not found:
        raise Unknown(f"camera {camera_id}, rule {rule_id}")
    return RuleHistory(camera_id=camera_id, rule_id=rule_id, versions=tuple(RuleChange.of(one) for one in found))


@router.get("/algorithms")
def algorithms(
    request: Request, parts: PartsHere, _caller: Reader, after: After = "", limit: Limit = ROWS
) -> Algorithms:
    """Sets of parameters that count, by name."""
    rows, more = parts.algorithms.page(after or None, limit)
    return Algorithms(algorithms=tuple(Algorithm.of(row) for row in rows), next=next_part(request, "after", more))


@router.get("/algorithms/{name}")
def algorithm(parts: PartsHere, _caller: Reader, name: AlgorithmPath, response: Response) -> Algorithm:
    """The version of a set of parameters that counts."""
    found = parts.algorithms.get(name)
    tagged(response, found.version)
    return Algorithm.of(found)


@router.put("/algorithms/{name}")
def put_algorithm(
    parts: PartsHere, caller: Changer, name: AlgorithmPath, seen: SeenOrNew, draft: Parameters, response: Response
) -> Algorithm:
    """Make a set of parameters (`If-None-Match: *`) or replace it (`If-Match`)."""
    made = parts.algorithms.put(name, draft.parameters, seen, caller.name, parts.clock.wall_ns())
    tagged(response, made.version)
    return Algorithm.of(made)


@router.delete("/algorithms/{name}", status_code=HTTPStatus.NO_CONTENT)
def delete_algorithm(parts: PartsHere, caller: Changer, name: AlgorithmPath, seen: Seen) -> None:
    """Let a set of parameters count no more; its versions stay in the history."""
    parts.algorithms.take_out(name, seen, caller.name, parts.clock.wall_ns())


@router.get("/algorithms/{name}/history")
def history_of_algorithm(
    request: Request,
    parts: PartsHere,
    _caller: Reader,
    name: AlgorithmPath,
    below: Below = None,
    limit: Limit = ROWS,
) -> Algorithms:
    """Versions of a set of parameters, newest first."""
    found = parts.algorithms.history(name, below, limit)
    if not found and below is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"algorithm {name}: there is none, and never was")
    more = found[-1].version if len(found) == limit else None
    return Algorithms(algorithms=tuple(Algorithm.of(one) for one in found), next=next_part(request, "below", more))


def _newest(parts: Parts, camera_id: str, rule_id: str) -> RuleKept:
    """A rule and its version, out of one row: read apart, a change between both reads would be overwritten unseen.

    Raises:
        Unknown: the camera has no such rule.
    """
    found = rule_history(parts.engine, camera_id, rule_id, limit=1)
    if not found or found[0].rule is None:
        raise Unknown(f"camera {camera_id}, rule {rule_id}")
    return RuleKept(version=found[0].version, rule=found[0].rule)
