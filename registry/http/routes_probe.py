"""Routes of probes: what a camera answers, as a node sees it.  Each waits for the node, half a minute at most."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends

from nodeagent.contract.camera import CameraSpec, StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.ids import CameraId, Frozen, NodeId
from nodeagent.contract.kept import is_masked
from nodeagent.contract.probe import StreamAnswer
from nodeagent.infra.web.problems import Problem
from registry.http.body import JsonBody
from registry.http.parts import PREFIX, Allowed, CameraPath, PartsHere, private
from registry.http.ports import Unanswered
from registry.http.problems import wrong
from registry.store.camera_record import CameraDraft
from registry.tokens import Bearer, Deed

Prober = Annotated[Bearer, Depends(Allowed(Deed.PROBE))]

router = APIRouter(prefix=PREFIX, dependencies=[Depends(private)], tags=["cameras"])


class Probe(Frozen):
    """What a camera answered."""

    camera_id: CameraId
    #: The node that looked.
    node_id: NodeId
    #: Its main stream, and its sub-stream if it has one.
    streams: tuple[StreamAnswer, ...]


@router.post("/cameras/{camera_id}/probe")
def probe(parts: PartsHere, _caller: Prober, camera_id: CameraPath) -> Probe:
    """Have the camera's owner, or while it has none a node that may, open its streams and say what they answer."""
    row = parts.cameras.get(camera_id, reveal=True)
    if row.trouble:
        raise Problem(HTTPStatus.CONFLICT, row.trouble)
    return _probed(parts, row.spec, row.labels)


@router.post("/probe")
def probe_draft(
    parts: PartsHere, _caller: Prober, draft: Annotated[CameraDraft, Depends(JsonBody(CameraDraft))]
) -> Probe:
    """The same for a camera that is not stored, or not as it is here: nothing is written."""
    for name, stream in _streams(draft.spec).items():
        if is_masked(stream.url.get_secret_value()):
            raise wrong(f"spec.{name}.url", "expected the URL with its secret: none is taken from a stored camera")
    return _probed(parts, draft.spec, draft.labels)


def _probed(parts: PartsHere, spec: CameraSpec, labels: Mapping[str, str]) -> Probe:
    try:
        node_id, result = parts.core.probe(spec.camera_id, _streams(spec), labels)
    except Unanswered as exc:
        raise Problem(HTTPStatus.GATEWAY_TIMEOUT, str(exc)) from None
    if result.trouble:
        raise Problem(HTTPStatus.BAD_GATEWAY, f"node {node_id} could not look: {result.trouble}")
    return Probe(camera_id=spec.camera_id, node_id=node_id, streams=result.streams)


def _streams(spec: CameraSpec) -> dict[StreamName, StreamSpec]:
    both: dict[StreamName, StreamSpec | None] = {"record": spec.record, "analyse": spec.analyse}
    return {name: stream for name, stream in both.items() if stream is not None}
