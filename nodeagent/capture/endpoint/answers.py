"""What the endpoint answers in JSON.  Times are UTC ns."""

from __future__ import annotations

from nodeagent.contract.clip import StreamName
from nodeagent.contract.ids import Frozen, NodeId, UtcNs
from nodeagent.infra.gaps import GapReason


class Health(Frozen):
    """The endpoint serves; all that is told without a token."""

    status: str = "ok"


class CameraRow(Frozen):
    """A camera with recordings on this node."""

    camera_id: str
    #: Whether this node is to record it now.
    wanted: bool


class Cameras(Frozen):
    """All of them."""

    node_id: NodeId
    cameras: tuple[CameraRow, ...]


class ClipRow(Frozen):
    """A finished clip."""

    camera_id: str
    epoch: int
    start_ns: UtcNs
    duration_ns: int
    stream: StreamName
    bytes: int
    #: Path on this endpoint.
    url: str


class Clips(Frozen):
    """A page of clips, in order of their start."""

    clips: tuple[ClipRow, ...]
    #: Path of the next page; none after the last.
    next: str | None


class GapRow(Frozen):
    """Time of which there is no clip of the main stream, and why."""

    from_ns: UtcNs
    to_ns: UtcNs
    reason: GapReason
    detail: str


class Gaps(Frozen):
    """In order of their start."""

    gaps: tuple[GapRow, ...]


class SpanRow(Frozen):
    """Time that was recorded without a hole."""

    from_ns: UtcNs
    to_ns: UtcNs


class Timeline(Frozen):
    """What there is of a time range, and what there is not."""

    recorded: tuple[SpanRow, ...]
    gaps: tuple[GapRow, ...]


class Link(Frozen):
    """Paths that a player opens without a header, until they expire."""

    #: HLS playlist of the range.
    playlist: str
    #: Goes behind the `?` of any clip's address in the range.
    query: str
    expires_ns: UtcNs
