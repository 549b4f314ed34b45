"""One backtest: videos in, episodes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nodeagent.backtest.clips import Chooser, Video
from nodeagent.backtest.episodes import Episode, episodes_of
from nodeagent.backtest.look import NODE_ID, Eye
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.camera import CameraSpec
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.shard import Batch, Shard


@dataclass(slots=True)
class Judged:
    """What came of one camera's videos.

    Attributes:
        episodes: by their start.
        unknown: videos of which nothing is known, with the reason.
        first_ns, last_ns: where the videos begin and end, UTC ns.
        video_ns: how long they are together.
    """

    camera_id: str
    first_ns: int
    last_ns: int
    video_ns: int
    episodes: list[Episode] = field(default_factory=list)
    unknown: list[tuple[Video, str]] = field(default_factory=list)


def judged(camera: CameraSpec, videos: Sequence[Video], eye: Eye) -> Judged:
    """Judge a camera's videos, of which there is at least one, in their order.

    Args:
        camera: its rules and its sampling.
        videos: ordered by epoch and time.
        eye: looks at them.

    Raises:
        BadModel: the model cannot serve.
    """
    # Everything is here already, so nothing is ever waited for.
    shard: Shard[None] = Shard(_fresh, reorder_wait_s=0.0)
    shard.want([camera])
    chooser = Chooser(camera)
    done = Judged(
        camera.camera_id,
        min(video.clip.start_ns for video in videos),
        max(video.end_ns for video in videos),
        sum(video.duration_ns for video in videos),
    )
    messages: list[AlarmMessage] = []
    started: dict[int, int] = {}
    numbers: dict[int, int] = {}
    for video in videos:
        epoch = video.clip.epoch
        number = numbers[epoch] = numbers.get(epoch, -1) + 1
        found = eye.look(chooser.choose(video), started.setdefault(epoch, video.clip.start_ns), number)
        if found.header.outcome == "unknown":
            done.unknown.append((video, found.header.reason))
        batch: Batch[None] = Batch()
        shard.take(found, None, 0.0, batch)
        shard.judge_due(0.0, batch)
        messages += [message for message, _ in batch.alarms]
    done.episodes = episodes_of(messages, done.last_ns)
    return done


def _fresh(camera: CameraSpec) -> CameraJudge:
    # Replays are not cut here, so how long they would be says nothing.
    return CameraJudge(Author(NODE_ID, camera.camera_id, 0.0, 0.0), camera.rules, camera.sample_fps)
