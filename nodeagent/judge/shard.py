"""The cameras of one judge process: arrivals in, batches of things to do out.

Pure: what a camera was before comes through `load`, what is to be done leaves in a Batch.  The judges change when a
batch is made, so the caller must carry the batch out before it makes another, however long that takes, or end: the bus
then delivers again what was not settled, and the snapshots say where to go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic

from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.detections import ClipDetections
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.ledger import Arrival
from nodeagent.judge.reorder import Reorder, Token


@dataclass(slots=True)
class Batch(Generic[Token]):
    """What is to be done, in this order: publish the alarms, store the judges, settle the deliveries.

    Attributes:
        alarms: messages, with the timings of the clip that caused each.
        judges: by camera, those whose state changed.
        settled: deliveries that are done with then.
        strays: deliveries of cameras that are not wanted here any more; who has them now judges them.
        end_ns: capture time at which the newest clip judged here ended; 0: none was.
        refused: clips of cameras that are not wanted here.
    """

    alarms: list[tuple[AlarmMessage, dict[str, int]]] = field(default_factory=list)
    judges: dict[str, CameraJudge] = field(default_factory=dict)
    settled: list[Token] = field(default_factory=list)
    strays: list[Token] = field(default_factory=list)
    end_ns: int = 0
    refused: int = 0

    def __bool__(self) -> bool:
        return bool(self.alarms or self.judges or self.settled or self.strays)


class Shard(Generic[Token]):
    """All cameras of one judge process.

    Attributes:
        specs: the cameras that are wanted here, by id.
        judges: those that were looked at since the start.
    """

    def __init__(self, load: Callable[[CameraSpec], CameraJudge], reorder_wait_s: float) -> None:
        self.specs: dict[str, CameraSpec] = {}
        self.judges: dict[str, CameraJudge] = {}
        self._load = load
        self._wait_s = reorder_wait_s
        self._waiting: dict[str, Reorder[Token]] = {}

    def want(self, cameras: Iterable[CameraSpec]) -> Batch[Token]:
        """Serve these cameras from now on, with these rules.

        The state of a camera that is not wanted any more stays stored as it is: it may only have moved to another node.
        """
        self.specs = {camera.camera_id: camera for camera in cameras}
        batch: Batch[Token] = Batch()
        for camera_id in sorted(set(self.judges) - set(self.specs)):
            del self.judges[camera_id]
        for camera_id in sorted(set(self._waiting) - set(self.specs)):
            batch.strays += self._waiting.pop(camera_id).tokens()
        for camera_id, judge in self.judges.items():
            spec = self.specs[camera_id]
            if spec.rules != judge.rules.rules:
                batch.judges[camera_id] = judge
            # Also when its rules stay: another sampling rate is another longest pause.
            batch.alarms += [(alarm, {}) for alarm in judge.retarget(spec.rules, spec.sample_fps)]
        return batch

    def forget(self, camera_id: str) -> None:
        """Load the camera's state anew when it is needed: another judge has a newer one."""
        self.judges.pop(camera_id, None)

    def take(self, clip: ClipDetections, token: Token, served_s: float, batch: Batch[Token]) -> None:
        """Sort one arrival: settled at once when there is nothing to judge in it, else held until it is its turn."""
        camera_id = clip.header.camera_id
        if camera_id not in self.specs:
            batch.settled.append(token)
            batch.refused += 1
            return
        judge = self._judge(camera_id, batch)
        arrival = judge.ledger.arrive(clip.header)
        if arrival is Arrival.NEW:
            waiting = self._waiting.setdefault(camera_id, Reorder(self._wait_s))
            waiting.add(clip, token, served_s)
            return
        judge.ledger.count(arrival)
        batch.judges[camera_id] = judge
        batch.settled.append(token)

    def judge_due(self, served_s: float, batch: Batch[Token]) -> None:
        """Judge every clip whose turn it is."""
        for camera_id, waiting in self._waiting.items():
            if waiting:
                self._judge_camera(camera_id, waiting, served_s, batch)

    def _judge_camera(self, camera_id: str, waiting: Reorder[Token], served_s: float, batch: Batch[Token]) -> None:
        judge = self._judge(camera_id, batch)
        # A clip that waits may have been overtaken: by a younger epoch's, or by a state that was loaded anew, which has
        # to learn the epochs of what waits too.
        overtaken = waiting.sift(lambda header: judge.ledger.arrive(header) is Arrival.NEW)
        for ready in itertools.chain(overtaken, waiting.ready(judge.ledger.epochs, served_s)):
            batch.settled += ready.tokens
            judge.ledger.counters.duplicates += len(ready.tokens) - 1
            batch.judges[camera_id] = judge
            header = ready.clip.header
            arrival = judge.ledger.arrive(header)
            if arrival is not Arrival.NEW:
                judge.ledger.count(arrival)
                continue
            batch.alarms += [(alarm, header.timings) for alarm in judge.judge(ready.clip, ready.missing)]
            batch.end_ns = max(batch.end_ns, header.end_ns)

    def _judge(self, camera_id: str, batch: Batch[Token]) -> CameraJudge:
        judge = self.judges.get(camera_id)
        if judge is None:
            spec = self.specs[camera_id]
            judge = self.judges[camera_id] = self._load(spec)
            # Rules may have changed while this process was not there.
            ended = judge.retarget(spec.rules, spec.sample_fps)
            if ended:
                batch.alarms += [(alarm, {}) for alarm in ended]
                batch.judges[camera_id] = judge
        return judge

    def __len__(self) -> int:
        return len(self.specs)

    @property
    def held(self) -> int:
        """Clips that wait for an earlier one."""
        return sum(len(waiting) for waiting in self._waiting.values())
