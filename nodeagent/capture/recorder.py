"""Packets of one stream in, clips out: the heart of a capture process, without threads and without a source of its own.

Every packet goes to the disk first and to the decoder second, so nothing that analysis does can cost a recorded second.
A stream that is not analysed is never decoded, and its clips are not announced: they are found by whoever wants them.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial

import av

from nodeagent.capture.books import Books, Camera
from nodeagent.capture.closing import give_unannounced_name
from nodeagent.capture.journal import Closed
from nodeagent.capture.key_frames import KeyFrames
from nodeagent.capture.landing import Ended, Landing
from nodeagent.capture.parameter_sets import Template
from nodeagent.capture.part import Part
from nodeagent.capture.places import Places
from nodeagent.capture.recovery import LeftPart, salvage
from nodeagent.capture.samples import ClipSamples, Samples
from nodeagent.capture.segmenter import Segmenter
from nodeagent.capture.sound import Heard, Sound
from nodeagent.capture.source import Arrived
from nodeagent.capture.timeline import Timeline
from nodeagent.contract.clip import ClipId, ClipTask, StreamName
from nodeagent.contract.errors import BadMedia, StorageUnavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.clock import Clock
from nodeagent.infra.gaps import GapReason
from nodeagent.infra.storage import StorageMissing

log = logging.getLogger(__name__)

#: A clip ends with its last frame, not at the next one's start, when the pause between them is longer than this, ns.
PAUSE_NS = 2 * NS_PER_S
#: A clip that has been written for this long, ns, shows that its disk takes what it is given: the file's head and the
#: first fragments, of half a second each, are out.
PROVEN_NS = NS_PER_S
#: Of a stream that is slower than that, a pause is as long as so many of its frames.
PAUSE_FRAMES = 2

#: Packets between two looks at the disks: a third of a second.
LOOK_EVERY = 8
#: How long the end of the process waits for its disks, seconds: two stalls and a move.
LAND_S = 8.0
#: Between two looks at a disk that is waited for, seconds.
LOOK_S = 0.1

Problem = tuple[State, str]


class Recorder:
    """The recording of one stream of a camera.

    Attributes:
        counts: what happened since the worker last took it over to the status board.
        problem: why no clip can be written now, if so.
        epoch: the camera's epoch; `next_epoch`: with which clips begin from the next key frame on.
        samples: the decoding side, while this stream is analysed.
        sound: what of it is recorded.
        ahead_ns: how far capture times are ahead of the camera's own clock; none while that is not told.
    """

    def __init__(
        self,
        camera: Camera,
        books: Books,
        samples: Samples | None,
        epoch: int,
        clock: Clock,
        counts: Counter[str],
        stream: StreamName = "record",
    ) -> None:
        self._camera = camera
        self._books = books
        self._stream: StreamName = stream
        self._next_samples = samples
        self._clock = clock
        self._timeline = Timeline(books.ledger.accounted_ns)
        self._segmenter = Segmenter(camera.clip_ns)
        self._keys = KeyFrames()
        self._template: Template | None = None
        self._part: Part | None = None
        places = Places(books.storage, books.closer.hands, clock)
        self._landing = Landing(places, stream, clock)
        self.samples = samples
        self.sound = Sound(camera.camera_id)
        self._unlooked = 0
        self.ahead_ns: int | None = None
        self.epoch = self.next_epoch = epoch
        self.counts = counts
        self.problem: Problem | None = None

    @property
    def recording(self) -> bool:
        """Whether a clip is open."""
        return self._part is not None

    @property
    def stream_trouble(self) -> str:
        """Why the stream cannot be analysed, though it may be recorded; empty when it can."""
        if self.samples is not None and self.samples.is_blind:
            return "packets arrive, but none gives a picture"
        return self._keys.missing if self._part is not None else ""

    @property
    def sparse_keys(self) -> str:
        """How far apart key frames are, where that is far; empty otherwise."""
        return self._keys.sparse if self._part is not None else ""

    def analyse(self, samples: Samples | None) -> None:
        """Analyse the stream with these from its next key frame on, where a new clip begins; with None not any more.

        `samples` says when it is so: they serve one stream at a time.
        """
        self._next_samples = samples
        if self._part is None:
            self._take_samples()

    def _take_samples(self) -> None:
        if self._next_samples is self.samples:
            return
        self.samples = self._next_samples
        if self.samples is not None and self._template is not None:
            self.samples.use(self._template.stream.codec_context)

    def begin_session(self, stream: av.VideoStream, sound: av.AudioStream | None = None) -> None:
        """The source was opened; its first key frame begins a clip, with this sound if it is to be recorded."""
        self._template = Template(stream)
        self.sound.begin_session(sound)
        if self.samples is not None:
            self.samples.use(stream.codec_context)
        self._timeline.interrupt(self._books.ledger.accounted_ns)
        self._segmenter.reset()
        self._keys.restart()

    def end_session(self, reason: GapReason, detail: str) -> None:
        """The source is gone: close what is open.  After this no stream of the session is used."""
        self._close(None)
        self._template = None
        self.sound.end_session()
        self.ahead_ns = None
        self._books.ledger.outage(reason, detail, self._clock.wall_ns())

    def feed(self, arrived: Arrived) -> None:
        """Take one packet.

        Raises:
            Fenced: a newer owner writes this camera's ring.
        """
        self._look_at_disks()
        packet = arrived.packet
        key = packet.is_keyframe
        template = self._template
        self._keys.add(arrived.arrival_ns, key=key)
        if template is None or (self._part is None and not key):
            return
        exact = arrived.camera_ns is not None
        time_ns = self._timeline.stamp(arrived.stamp_ns, arrived.arrival_ns, key=key, exact=exact)
        if arrived.camera_ns is not None:
            self.ahead_ns = time_ns - arrived.camera_ns
        self.sound.picture_at(arrived.stamp_ns, time_ns, arrived.arrival_ns)
        if key:
            # Stamps that stand still are spread by ticks, which may lead a little past the next key frame's.
            time_ns = max(time_ns, self._part.last_ns + 1 if self._part is not None else 0)
            self._at_key_frame(template, packet, time_ns)
        if self._part is not None:
            self._write(self._part, packet, time_ns)

    def _look_at_disks(self) -> None:
        """Every few packets: announce what its disk has completed, and see that the open clip's disk takes it."""
        self._unlooked += 1
        if self._unlooked < LOOK_EVERY:
            return
        self._unlooked = 0
        self._settle()
        if self._part is not None:
            self._is_safe(self._part)

    def hear(self, heard: Heard) -> None:
        """Take one packet of sound; none of its faults costs a picture."""
        taken = self.sound.take(heard)
        if taken is None or self._part is None:
            return
        try:
            self._part.hear(*taken)
        except BadMedia as exc:
            self.sound.drop(str(exc))

    def _write(self, part: Part, packet: av.Packet[av.VideoStream], time_ns: int) -> None:
        size, key = packet.size, packet.is_keyframe
        try:
            exact_ns = part.write(packet, time_ns)
        except BadMedia as exc:
            self.counts["decode_errors"] += 1
            if key:
                self._lose_open(part, (State.BAD_STREAM, str(exc)))
            return
        self.counts["bytes"] += size
        if part.last_ns - part.clip.start_ns >= PROVEN_NS and part.on_disk:
            self._prove(part)
        if exact_ns is not None and self.samples is not None:
            self.samples.feed(packet, exact_ns)

    def _at_key_frame(self, template: Template, packet: av.Packet[av.VideoStream], time_ns: int) -> None:
        other_rate = self._timeline.rate_changed()
        other_header = template.changes(packet)
        changed = other_header or other_rate or self._next_samples is not self.samples or self.next_epoch != self.epoch
        if not self._segmenter.cuts(time_ns) and not changed and self._part is not None:
            return
        self._close(time_ns)
        if other_rate and self.samples is not None:
            self.samples.renew_ring()
        self._take_samples()
        if other_header and self.samples is not None:
            self.samples.use(template.stream.codec_context)
        self.epoch = self.next_epoch
        self._open(template.stream, time_ns)

    def _open(self, stream: av.VideoStream, start_ns: int) -> None:
        clip = ClipId(camera_id=self._camera.camera_id, epoch=self.epoch, start_ns=start_ns)
        if not stream.width or not stream.height:
            self._set_problem(State.BAD_STREAM, "the stream does not tell its picture's size")
            return
        try:
            self._part = self._landing.begin(clip, stream, self.sound.track(start_ns))
        except StorageMissing as exc:
            self._set_problem(State.STORAGE_MISSING, str(exc))
            return
        except StorageUnavailable as exc:
            self._set_problem(State.STORAGE_FULL, str(exc))
            return
        except BadMedia as exc:
            self._set_problem(State.BAD_STREAM, str(exc))
            return
        self._segmenter.begin(start_ns)
        if self.samples is not None:
            self.samples.begin_clip(stream.width, stream.height, self.epoch)

    def _is_safe(self, part: Part) -> bool:
        """Whether the open clip's disk takes it, or another one does now; if none does, it is lost."""
        try:
            self._landing.check(part)
        except StorageUnavailable as exc:
            self._lose_open(part, (State.STORAGE_FULL, str(exc)))
            return False
        return True

    def _prove(self, part: Part) -> None:
        """The clip is on its disk; that a file could be made there says little."""
        self._account(part)
        if self.problem is not None:
            log.info("camera %s records again", part.clip.camera_id, extra={"event": "recording_again"})
            self.problem = None

    def _account(self, part: Part) -> None:
        if not part.accounted:
            part.accounted = True
            self._books.ledger.begin(part.clip.start_ns)

    def _set_problem(self, state: State, detail: str) -> None:
        if self.problem is None or self.problem[0] is not state:
            log.warning(
                "camera %s is not recorded: %s", self._camera.camera_id, detail, extra={"event": "not_recorded"}
            )
        self.problem = (state, detail)
        self._books.ledger.outage(GapReason(state.value), detail, self._clock.wall_ns())

    def _close(self, next_ns: int | None) -> None:
        """Close the open clip, if any; `next_ns` is where the next one begins."""
        part, self._part = self._part, None
        if part is None:
            return
        samples = self.samples.end_clip() if self.samples is not None else None
        step_ns = self._timeline.step_ns
        end_ns = part.last_ns + min(step_ns, PAUSE_NS)
        if next_ns is not None and next_ns - part.last_ns <= max(PAUSE_NS, PAUSE_FRAMES * step_ns):
            end_ns = next_ns
        try:
            self._landing.end(Ended(part, end_ns, samples))
        except BadMedia as exc:
            self._lose(part, (State.BAD_STREAM, str(exc)), announced=samples is not None)
            return
        # Told now, though it may take its disk a while: what the disk does not take is told as lost then.
        self._account(part)
        self._books.ledger.end(end_ns)
        self._settle()

    def _settle(self) -> None:
        """Announce the clips that are complete on their disks."""
        for ended, trouble in self._landing.landed():
            part = ended.part
            if trouble is not None:
                announced = ended.samples is not None
                self._lose(part, (State.STORAGE_FULL, str(trouble)), announced=announced, told_ns=ended.end_ns)
                continue
            if ended.samples is None:
                name = partial(give_unannounced_name, part.path, part.clip, ended.end_ns - part.clip.start_ns)
                self._books.closer.on_disk(part.path, part.clip, name)
            else:
                self._announce(part, ended.end_ns, ended.samples)
            self._prove(part)
            self.counts["clips_made"] += 1

    def _announce(self, part: Part, end_ns: int, samples: ClipSamples) -> None:
        """Close a clip that was analysed, so that it will be announced."""
        closer, clip = self._books.closer, part.clip
        # The clip's own epoch: the recorder's may be the next one by now.
        started_ns = closer.epoch_started_ns(clip.epoch)
        if started_ns is None:
            started_ns = samples.sample_ns[0] if samples.sample_ns else clip.start_ns
        task = ClipTask(
            node_id=self._camera.plan.node_id,
            camera_id=clip.camera_id,
            epoch=clip.epoch,
            epoch_started_ns=started_ns,
            clip_seq=closer.next_seq(clip.epoch),
            start_ns=clip.start_ns,
            duration_ns=end_ns - clip.start_ns,
            stream=self._stream,
            sample_ns=samples.sample_ns,
            sample_width=samples.width,
            sample_height=samples.height,
            ring=samples.ring,
            luma=samples.luma,
            closed_ns=self._clock.wall_ns(),
        )
        closer.close(Closed(task, part.path.parent, part.last_ns))

    def _lose_open(self, part: Part, problem: Problem) -> None:
        """The open clip cannot be written on."""
        self._part = None
        if self.samples is not None:
            self.samples.end_clip()
        self._lose(part, problem, announced=self.samples is not None)
        self._segmenter.reset()

    def _lose(self, part: Part, problem: Problem, *, announced: bool, told_ns: int | None = None) -> None:
        """A clip cannot be written on: keep what of it is whole, and announce that if the clip was analysed.

        `told_ns` is the end that it was told to have.
        """
        reached_ns = self._salvaged(part, announced)
        if told_ns is not None:
            from_ns = part.clip.start_ns if reached_ns is None else reached_ns
            self._books.ledger.lost(from_ns, told_ns, GapReason(problem[0].value), problem[1])
        elif reached_ns is not None:
            self._books.ledger.begin(part.clip.start_ns)
            self._books.ledger.end(reached_ns)
        self._set_problem(*problem)

    def _salvaged(self, part: Part, announced: bool) -> int | None:
        """Make a clip of what the disk has; returns where it ends, None when nothing can be had."""
        try:
            part.leave()
        except StorageUnavailable:
            return None
        left = LeftPart(part.path, part.clip, self._stream, announced=announced)
        end_ns = salvage(left, self._camera.plan, self._books.closer, self._clock.wall_ns())
        if end_ns is not None:
            self.counts["clips_made"] += 1
            self.counts["repaired"] += 1
        return end_ns

    def tick(self) -> None:
        """Once a second or so: close clips that wait, and keep the account up to date while nothing is recorded."""
        self._books.closer.settle()
        self._settle()
        if self._part is not None:
            self._is_safe(self._part)
            return
        if self._template is not None and self._keys.awaited:
            self._set_problem(State.BAD_STREAM, self._keys.awaited)
        self._books.ledger.tick(self._clock.wall_ns())

    def land(self, patience_s: float) -> None:
        """Wait for the disks to complete the clips that ended; what they do not take in time stays a part there."""
        until_s = self._clock.monotonic_s() + patience_s
        self._settle()
        while self._landing.waits and self._clock.monotonic_s() < until_s:
            self._landing.wait(LOOK_S)
            self._settle()

    def close(self) -> None:
        """Close the open clip."""
        self._close(None)
        self.land(LAND_S)
