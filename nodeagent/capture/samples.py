"""Decodes the packets of the open clip and puts its samples into the ring.

The decoder is drained and reset at each cut, so a clip decodes here exactly as it does from its file: same frames, same
bytes.  Without a ring (memory short) the samples are still chosen and named: their pictures come from the file later.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import av

from nodeagent.capture.sampler import Sampler, Skipper
from nodeagent.contract.clip import RingRef
from nodeagent.contract.errors import AgentError, BadMedia, Fenced
from nodeagent.infra.video import I420Scaler, sample_size
from nodeagent.ring.writer import RingWriter

log = logging.getLogger(__name__)

#: Packets in a row without a picture after which the stream counts as undecodable: more than any decoder's delay.
BLIND_PACKETS = 100

Packet: TypeAlias = "av.Packet[av.VideoStream]"


@dataclass(frozen=True, slots=True)
class RingPlace:
    """Where a camera's ring is, and how long."""

    memory_dir: Path
    camera_id: str
    slots: int


@dataclass(frozen=True, slots=True)
class ClipSamples:
    """Samples of one finished clip."""

    sample_ns: tuple[int, ...]
    width: int
    height: int
    ring: RingRef | None


class Samples:
    """The decoding side of one camera.

    Attributes:
        ring_trouble: why there is no ring; empty when there is one.
        blind: packets in a row that gave no picture.
        last_ns: capture time of the latest sample; 0 before the first.
    """

    def __init__(self, place: RingPlace, sample_fps: float, sample_width: int, counts: Counter[str]) -> None:
        self._place = place
        self._fps = sample_fps
        self._sample_width = sample_width
        self._counts = counts
        self._sampler = Sampler(sample_fps)
        self._skipper = Skipper(sample_fps)
        self._context: av.VideoCodecContext | None = None
        self._ring: RingWriter | None = None
        self._scale = I420Scaler(2, 2)
        self._sample_ns: list[int] = []
        self._seqs: list[int] = []
        self.ring_trouble = ""
        self.blind = 0
        self.last_ns = 0

    def resume_after(self, last_frame_ns: int | None) -> None:
        """The frame before the next one, of a killed predecessor."""
        self._sampler = Sampler(self._fps, last_frame_ns)

    def use(self, theirs: av.VideoCodecContext) -> None:
        """Decode the stream of this context from now on.

        With a decoder of our own: theirs belongs to the source's thread, which resets it when a file starts again.
        """
        context = cast("av.VideoCodecContext", av.CodecContext.create(theirs.codec.name, "r"))
        context.extradata = theirs.extradata
        context.width, context.height, context.pix_fmt = theirs.width, theirs.height, theirs.pix_fmt
        context.thread_count = 1
        self._context = context
        self.blind = 0

    def begin_clip(self, width: int, height: int, epoch: int) -> None:
        """A clip of this picture size begins; opens the ring when there is none of its size.

        Raises:
            Fenced: a newer owner writes this camera's ring.
        """
        size = sample_size(width, height, self._sample_width)
        self._sample_ns, self._seqs = [], []
        if self._ring is not None and size == (self._scale.width, self._scale.height):
            return
        self._scale = I420Scaler(*size)
        self._close_ring()
        place = self._place
        try:
            self._ring = RingWriter.open(place.memory_dir, place.camera_id, epoch, *size, place.slots)
            self.ring_trouble = ""
        except Fenced:
            raise
        except AgentError as exc:
            if not self.ring_trouble:
                log.warning("%s", exc, extra={"event": "ring_full", "camera": place.camera_id})
            self.ring_trouble = str(exc)

    def feed(self, packet: Packet, time_ns: int) -> None:
        """Decode a packet whose picture is shown at `time_ns`.

        Raises:
            Fenced: a newer owner writes this camera's ring.
        """
        context = self._context
        if context is None:
            return
        packet.pts = time_ns
        context.skip_frame = "NONREF" if self._skipper.may_skip(time_ns) else "DEFAULT"
        self.blind += 1
        self._decode(context, packet)

    def _decode(self, context: av.VideoCodecContext, packet: Packet | None) -> None:
        try:
            decoded = context.decode(packet)
        except av.FFmpegError:
            self._counts["decode_errors"] += 1
            return
        for frame in decoded:
            self.blind = 0
            self._counts["frames"] += 1
            if frame.pts is not None and self._sampler.take(frame.pts):
                self._take(frame, frame.pts)

    def _take(self, frame: av.VideoFrame, time_ns: int) -> None:
        self.last_ns = time_ns
        self._sample_ns.append(time_ns)
        self._counts["samples"] += 1
        if self._ring is None:
            return
        try:
            self._seqs.append(self._ring.write(self._scale(frame), time_ns))
        except BadMedia as exc:
            self._counts["decode_errors"] += 1
            log.warning("camera %s: %s", self._place.camera_id, exc, extra={"event": "bad_frame"})

    def end_clip(self) -> ClipSamples:
        """Decode what is left and say which samples the clip has."""
        if self._context is not None:
            self._decode(self._context, None)
            self._context.flush_buffers()
        ref = None
        # A clip with more samples than slots has overwritten its own first ones.
        whole = 0 < len(self._seqs) == len(self._sample_ns) <= self._place.slots
        if self._ring is not None and whole:
            ref = RingRef(generation=self._ring.generation, first_seq=self._seqs[0], count=len(self._seqs))
        return ClipSamples(tuple(self._sample_ns), self._scale.width, self._scale.height, ref)

    def _close_ring(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def close(self) -> None:
        """Let go of the ring."""
        self._close_ring()
