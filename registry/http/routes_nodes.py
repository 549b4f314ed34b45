"""Routes of nodes: how they are, and what people order of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from nodeagent.infra.web.problems import Problem
from registry.http.answers_live import DrainOrdered, Node, Nodes, NodeWhole, Overview, Thawed
from registry.http.body import JsonBody
from registry.http.paging import ROWS, After, Limit, next_part
from registry.http.parts import PREFIX, Allowed, NodePath, PartsHere, Reader, private
from registry.http.versions import SeenPerhaps, tagged
from registry.member import NodePhase
from registry.store.nodes import DrainOrder
from registry.tokens import Bearer, Deed, Role

Drainer = Annotated[Bearer, Depends(Allowed(Deed.DRAIN))]
Forgetter = Annotated[Bearer, Depends(Allowed(Deed.FORGET_NODE))]
Thawer = Annotated[Bearer, Depends(Allowed(Deed.THAW))]

router = APIRouter(prefix=PREFIX, dependencies=[Depends(private)], tags=["nodes"])


@router.get("/cluster")
def cluster(parts: PartsHere, _caller: Reader) -> Overview:
    """Who leads, whether evictions are held, and how many nodes and cameras are in each phase."""
    return Overview.of(parts.core.registry_id, parts.core.cluster())


@router.get("/nodes")
def nodes(
    request: Request,
    parts: PartsHere,
    _caller: Reader,
    phase: Annotated[NodePhase | None, Query(description="Only those in this phase.")] = None,
    after: After = "",
    limit: Limit = ROWS,
) -> Nodes:
    """Nodes, by id."""
    found = parts.core.nodes(after, limit + 1, phase)
    rows = tuple(Node.of(one) for one in found[:limit])
    more = rows[-1].node_id if len(found) > limit else None
    return Nodes(nodes=rows, next=next_part(request, "after", more))


@router.get("/nodes/{node_id}")
def node(parts: PartsHere, _caller: Reader, node_id: NodePath, response: Response) -> NodeWhole:
    """One node with its cameras, its children and, while it drains, how far it is."""
    standing = parts.core.node(node_id)
    _tag(response, standing.version)
    return NodeWhole.of(standing)


@router.post("/nodes/{node_id}/drain", status_code=HTTPStatus.ACCEPTED)
def drain(
    parts: PartsHere,
    caller: Drainer,
    node_id: NodePath,
    seen: SeenPerhaps,
    ordered: Annotated[DrainOrdered, Depends(JsonBody(DrainOrdered))],
    response: Response,
) -> Node:
    """Order a node to hand its cameras over.  It goes on with each until another node captures it; `GET` the node to
    see how far it is, `DELETE` this to take the order back.  Refused while the others lack capacity, unless forced.
    """
    if ordered.forced and not caller.may(Deed.FORCE_DRAIN):
        raise Problem(HTTPStatus.FORBIDDEN, f"to force a drain needs the role {Role.ADMIN.value}")
    order = DrainOrder(by=caller.name, at_ns=parts.clock.wall_ns(), forced=ordered.forced)
    standing = parts.core.drain(node_id, order, seen)
    _tag(response, standing.version)
    return Node.of(standing)


@router.delete("/nodes/{node_id}/drain")
def undrain(parts: PartsHere, caller: Drainer, node_id: NodePath, seen: SeenPerhaps, response: Response) -> Node:
    """Take the order to drain back.  A node that leaves by its own word leaves all the same."""
    standing = parts.core.undrain(node_id, caller.name, seen)
    _tag(response, standing.version)
    return Node.of(standing)


@router.delete("/nodes/{node_id}", status_code=HTTPStatus.NO_CONTENT)
def forget(parts: PartsHere, caller: Forgetter, node_id: NodePath, seen: SeenPerhaps) -> None:
    """Forget a dead node that is gone for good."""
    parts.core.forget(node_id, caller.name, seen)


@router.post("/thaw")
def thaw(parts: PartsHere, caller: Thawer) -> Thawed:
    """End a freeze of evictions: nodes that are silent now lose their cameras."""
    reason = parts.core.thaw(caller.name)
    return Thawed(thawed=bool(reason), reason=reason)


def _tag(response: Response, version: int) -> None:
    if version:
        tagged(response, version)
