"""Decodes the packets of the open clip and puts its samples into the ring.

The decoder is drained and reset at each cut, so a clip decodes here exactly as it does from its file: same frames, same
bytes.  Without a ring (memory short) the samples are still chosen and named: their pictures come from the file later.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import av

from nodeagent.capture.decoder import Decoder, Packet
from nodeagent.capture.luma import LumaMeter
from nodeagent.capture.sampler import Sampler
from nodeagent.contract.camera import SampleMode
from nodeagent.contract.clip import RingRef, SampleLuma
from nodeagent.contract.errors import AgentError, BadMedia, Fenced
from nodeagent.infra.video import I420Scaler, sample_size
from nodeagent.ring.writer import RingWriter

log = logging.getLogger(__name__)

#: Packets in a row without a picture after which the stream counts as undecodable: more than any decoder's delay, and
#: of key frames alone, which have none, a few.
BLIND_PACKETS: dict[SampleMode, int] = {"frames": 100, "keyframes": 5}


@dataclass(frozen=True, slots=True)
class RingPlace:
    """Where a camera's ring is, and how long."""

    memory_dir: Path
    camera_id: str
    slots: int


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Which samples a camera wants, and how its stream is decoded for them.

    Attributes:
        fps: samples per second.
        width: pixels; the height follows the picture.
        mode: whether key frames alone are looked at.
        hardware: FFmpeg's name of the device that decodes; empty: none.
    """

    fps: float
    width: int
    mode: SampleMode = "frames"
    hardware: str = ""


@dataclass(frozen=True, slots=True)
class ClipSamples:
    """Samples of one finished clip."""

    sample_ns: tuple[int, ...]
    width: int
    height: int
    ring: RingRef | None
    luma: SampleLuma | None


class Samples:
    """The decoding side of one camera.

    Attributes:
        ring_trouble: why there is no ring; empty when there is one.
        last_ns: capture time of the latest sample; 0 before the first.
    """

    def __init__(self, place: RingPlace, plan: SamplePlan, counts: Counter[str]) -> None:
        self._place = place
        self._plan = plan
        self._counts = counts
        self._sampler = Sampler(plan.fps)
        self._decoder: Decoder | None = None
        self._ring: RingWriter | None = None
        self._held: RingWriter | None = None
        self._scale = I420Scaler(2, 2)
        self._luma = LumaMeter()
        self._sample_ns: list[int] = []
        self._seqs: list[int] = []
        self._blind = 0
        self.ring_trouble = ""
        self.last_ns = 0

    @property
    def is_blind(self) -> bool:
        """Whether packets come that give no picture."""
        return self._blind >= BLIND_PACKETS[self._plan.mode]

    @property
    def software_because(self) -> str:
        """Why the hardware decoder that was asked for is not used; empty when all is as asked for."""
        return self._decoder.software_because if self._decoder is not None else ""

    def resume_after(self, last_frame_ns: int | None) -> None:
        """The frame before the next one, of a killed predecessor."""
        self._sampler = Sampler(self._plan.fps, last_frame_ns)

    def use(self, theirs: av.VideoCodecContext) -> None:
        """Decode the stream of this context from now on."""
        self._decoder = Decoder(theirs, self._plan.hardware)
        self._blind = 0

    def begin_clip(self, width: int, height: int, epoch: int) -> None:
        """A clip of this picture size begins; opens the ring when there is none of its size.

        Raises:
            Fenced: a newer owner writes this camera's ring.
        """
        size = sample_size(width, height, self._plan.width)
        self._sample_ns, self._seqs = [], []
        if self._ring is not None and size == (self._scale.width, self._scale.height):
            self._ring.begin_epoch(epoch)
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
        finally:
            self._close_held()

    def feed(self, packet: Packet, time_ns: int) -> None:
        """Decode a packet whose picture is shown at `time_ns`.

        Raises:
            Fenced: a newer owner writes this camera's ring.
        """
        decoder = self._decoder
        if decoder is None:
            return
        packet.pts = time_ns
        if self._plan.mode == "keyframes":
            if packet.is_keyframe:
                # One picture, whole in itself: it need not wait in the decoder for those behind it.
                self._decode(decoder, packet)
                self._decode(decoder, None)
            return
        self._decode(decoder, packet, skippable=self._sampler.may_skip(time_ns))

    def _decode(self, decoder: Decoder, packet: Packet | None, *, skippable: bool = False) -> None:
        self._blind += packet is not None
        try:
            decoded = decoder.decode(packet, "NONREF" if skippable else "DEFAULT")
        except BadMedia:
            self._counts["decode_errors"] += 1
            return
        for frame in decoded:
            self._blind = 0
            self._counts["frames"] += 1
            # A picture with holes, where packets were lost on the way: FFmpeg fills them from the picture before.
            self._counts["decode_errors"] += frame.is_corrupt
            if frame.pts is not None and self._sampler.take(frame.pts):
                self._take(frame, frame.pts)

    def _take(self, frame: av.VideoFrame, time_ns: int) -> None:
        self.last_ns = time_ns
        self._sample_ns.append(time_ns)
        self._counts["samples"] += 1
        try:
            picture = self._scale(frame)
        except BadMedia as exc:
            self._luma.skip()
            self._counts["decode_errors"] += 1
            log.warning("camera %s: %s", self._place.camera_id, exc, extra={"event": "bad_frame"})
            return
        self._luma.measure(picture[: self._scale.height])
        if self._ring is not None:
            self._seqs.append(self._ring.write(picture, time_ns))

    def end_clip(self) -> ClipSamples:
        """Decode what is left and say which samples the clip has."""
        if self._decoder is not None:
            self._decode(self._decoder, None)
        ref = None
        # A clip with more samples than slots has overwritten its own first ones.
        whole = 0 < len(self._seqs) == len(self._sample_ns) <= self._place.slots
        if self._ring is not None and whole:
            ref = RingRef(generation=self._ring.generation, first_seq=self._seqs[0], count=len(self._seqs))
        luma = self._luma.take()
        return ClipSamples(tuple(self._sample_ns), self._scale.width, self._scale.height, ref, luma)

    def renew_ring(self) -> None:
        """The next clip begins a ring of its own, as when its picture had another size."""
        self._close_held()
        # Held until then: a ring that nobody holds would be adopted.
        self._held, self._ring = self._ring, None

    def _close_held(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _close_ring(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def close(self) -> None:
        """Let go of the ring."""
        self._close_held()
        self._close_ring()
