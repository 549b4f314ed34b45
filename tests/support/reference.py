"""What the clips on disk must have led to, worked out anew in one process: decode, infer, judge, clip after clip.

It shares the pure code with the product and none of what may go wrong there: no ring, no broker, no restart.  So its
alarms are the truth about loss and doubling, whatever was killed while the clips were recorded and judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nodeagent.capture.sampler import Sampler
from nodeagent.cli.demo_facts import frame_times
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.detections import DETECTION_DTYPE, ClipDetections, DetectionsHeader, Rows
from nodeagent.inference.letterbox import Letterbox
from nodeagent.inference.model import Model, load_models
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.storage import Storage, StoredClip
from nodeagent.infra.video import clip_samples, opened, sample_size
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from tests.support.site import FOREVER_NS


def reference_alarms(settings: Settings) -> dict[str, AlarmMessage]:
    """The `started` message of every alarm that the clips on disk lead to, by its dedup_key."""
    models = load_models(settings)
    storage = Storage(settings.pools)
    found: dict[str, AlarmMessage] = {}
    for camera in settings.cameras:
        model = models[camera.model] if camera.model else next(iter(models.values()))
        clips = storage.clips(camera.camera_id, 0, FOREVER_NS)
        for message in _judged(settings, camera, model, clips):
            if message.stage == "started":
                found.setdefault(message.dedup_key, message)
    return found


def _judged(
    settings: Settings, camera: CameraSpec, model: Model, clips: Sequence[StoredClip]
) -> Iterator[AlarmMessage]:
    alarm = settings.alarm
    author = Author(settings.node.node_id, camera.camera_id, alarm.replay_before_s, alarm.replay_after_s)
    judge = CameraJudge(author, camera.rules, camera.sample_fps)
    sampler = Sampler(camera.sample_fps)
    for number, stored in enumerate(clips):
        sample_ns = tuple(time_ns for time_ns in frame_times(stored) if sampler.take(time_ns))
        clip = _inferred(settings, camera, model, stored, number, sample_ns)
        judge.ledger.arrive(clip.header)
        yield from judge.judge(clip)


def _inferred(
    settings: Settings,
    camera: CameraSpec,
    model: Model,
    stored: StoredClip,
    number: int,
    sample_ns: tuple[int, ...],
) -> ClipDetections:
    with opened(stored.path) as (_, stream):
        width, height = sample_size(stream.width, stream.height, camera.sample_width)
    header = DetectionsHeader(
        node_id=settings.node.node_id,
        camera_id=camera.camera_id,
        epoch=stored.clip.epoch,
        epoch_started_ns=stored.clip.start_ns,
        clip_seq=number,
        start_ns=stored.clip.start_ns,
        duration_ns=stored.duration_ns,
        samples_expected=len(sample_ns),
        sample_ns=sample_ns,
        sample_width=width,
        sample_height=height,
        model=model.description.name,
        model_version=model.version,
        labels=model.description.labels,
        path="clip",
    )
    return ClipDetections(header, _rows(settings, model, stored, header))


def _rows(settings: Settings, model: Model, stored: StoredClip, header: DetectionsHeader) -> Rows:
    """Boxes of all samples, in batches as the worker makes them."""
    told = model.description.input
    letterbox = Letterbox(header.sample_width, header.sample_height, told)
    inputs = np.empty((len(header.sample_ns), told.height, told.width, 3), np.uint8)
    read = set()
    samples = clip_samples(
        stored.path, stored.clip.start_ns, header.sample_ns, header.sample_width, header.sample_height
    )
    for index, picture in samples:
        letterbox(picture, inputs[index])
        read.add(index)
    wanted = len(header.sample_ns)
    assert len(read) == wanted, f"{stored.path.name}: {len(read)} of {wanted} samples decode"
    batch = settings.inference.batch
    found = [
        model.find(model.engine.infer(inputs[first : first + batch])[0], letterbox.placement, first)
        for first in range(0, len(inputs), batch)
    ]
    return np.concatenate(found) if found else np.empty(0, DETECTION_DTYPE)
