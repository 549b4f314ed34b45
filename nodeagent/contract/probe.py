"""A probe: what a camera's streams answer right now, asked of a node by its registry.

The order comes with the answer to a report, and the result goes with a later report.  An order holds stream
credentials; a result holds none.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.ids import Frozen
from nodeagent.contract.states import State

#: Longest sentence of a result, characters.
SENTENCE_MOST = 300
#: Results that one report may carry: more than a node runs at a time.
RESULTS_MOST = 16

#: Sixteen hexadecimal digits that nobody else made.
ProbeId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sentence = Annotated[str, Field(max_length=SENTENCE_MOST)]


class ProbeOrder(Frozen):
    """What a node is to look at."""

    probe_id: ProbeId
    streams: dict[StreamName, StreamSpec]


class StreamAnswer(Frozen):
    """What one stream answered.

    Attributes:
        state: `capturing`: pictures come; else why they do not.
        detail: one sentence on the state, without any credential.
        codec: FFmpeg's name of it; empty: not known.
        width, height: of its picture, pixels; 0: not known.
        fps: pictures per second, measured.
        keyframe_s: seconds between two key frames, measured; none: fewer than two came.
        sound: codec of its sound; empty: none.
    """

    stream: StreamName
    state: State
    detail: Sentence = ""
    codec: str = Field(default="", max_length=32)
    width: Annotated[int, Field(ge=0)] = 0
    height: Annotated[int, Field(ge=0)] = 0
    fps: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    keyframe_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    sound: str = Field(default="", max_length=32)


class ProbeResult(Frozen):
    """What became of an order.

    Attributes:
        streams: one for each of the order; empty where it could not be carried out.
        trouble: why it was not carried out, one sentence; empty: it was.
    """

    probe_id: ProbeId
    streams: tuple[StreamAnswer, ...] = ()
    trouble: Sentence = ""
