"""A video's samples through the model, or what the model saw of them the last time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nodeagent.backtest.cache import Cache
from nodeagent.backtest.clips import Chosen
from nodeagent.contract.clip import ClipTask
from nodeagent.contract.codec import TYPE_HEADER, Message, decode_detections, encode_detections
from nodeagent.contract.detections import DETECTION_DTYPE, ClipDetections, Rows
from nodeagent.contract.errors import BadMedia, DecodeError
from nodeagent.inference.description import ModelDescription, read_description
from nodeagent.inference.letterbox import Letterbox
from nodeagent.inference.model import Model, load_model
from nodeagent.inference.onnx_engine import file_sha256
from nodeagent.inference.publisher import detections_of
from nodeagent.inference.work import Ended, Job
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.video import clip_samples

#: What detections are said to come from: no agent's.
NODE_ID = "backtest"


@dataclass(frozen=True, slots=True)
class Engine:
    """How the model is run.

    Attributes:
        file: the model's TOML.
        threads: of one call.
        batch: samples of one call.
    """

    file: Path
    threads: int
    batch: int


class Eye:
    """Looks at videos.

    Attributes:
        description: of the model.
        inferred, cached: videos that the model looked at, and those that it had looked at before.
        uncached: why the last entry could not be kept; empty when all were.
    """

    def __init__(self, engine: Engine, cache: Cache | None) -> None:
        """Read the model's description; the model itself is loaded when there is something to look at.

        Raises:
            BadModel: its description or its file is faulty.
        """
        self.description: ModelDescription = read_description(engine.file)
        self.inferred = 0
        self.cached = 0
        self.uncached = ""
        self._engine = engine
        self._cache = cache
        self._identity = [
            file_sha256(self.description.file),
            self.description.model_dump(mode="json", exclude={"file"}),
            version("onnxruntime"),
        ]

    @cached_property
    def _model(self) -> Model:
        return load_model(self._engine.file, self._engine.threads)

    def look(self, chosen: Chosen, epoch_started_ns: int, clip_seq: int) -> ClipDetections:
        """What the model sees in a video, as the `clip_seq`-th clip of its epoch.

        A video that cannot be read is of unknown outcome, with the reason, and is not kept.

        Raises:
            BadModel: the model cannot serve.
        """
        task = _task(chosen, epoch_started_ns, clip_seq)
        if chosen.trouble:
            return _found(task, None, (), _no_rows(), chosen.trouble)
        try:
            key = self._key(chosen)
            known = self._known(key, task)
            if known is not None:
                self.cached += 1
                return known
            read_ns, rows = self._infer(chosen)
        except (BadMedia, OSError) as exc:
            return _found(task, None, (), _no_rows(), str(exc))
        self.inferred += 1
        found = _found(task, self._model, read_ns, rows, "")
        self._keep(key, found)
        return found

    def _infer(self, chosen: Chosen) -> tuple[tuple[int, ...], Rows]:
        """Capture times of the samples that were read, in order, and their boxes."""
        if not chosen.sample_ns:
            return (), _no_rows()
        size = self.description.input
        letterbox = Letterbox(chosen.width, chosen.height, size)
        inputs = np.empty((self._engine.batch, size.height, size.width, 3), np.uint8)
        read: list[int] = []
        rows: list[Rows] = []
        filled = 0
        for index, picture in _pictures(chosen):
            letterbox(picture, inputs[filled])
            read.append(chosen.sample_ns[index])
            filled += 1
            if filled == len(inputs):
                rows.append(self._boxes(inputs, letterbox, len(read) - filled))
                filled = 0
        if filled:
            rows.append(self._boxes(inputs[:filled], letterbox, len(read) - filled))
        return tuple(read), np.concatenate(rows)

    def _boxes(self, inputs: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], at: Letterbox, first: int) -> Rows:
        return self._model.find(self._model.engine.infer(inputs)[0], at.placement, first)

    def _key(self, chosen: Chosen) -> str:
        video = chosen.video
        status = video.path.stat()
        of_file = [video.path.name, status.st_size, status.st_mtime_ns, video.clip.start_ns]
        parts = [of_file, self._identity, chosen.sample_ns, chosen.width, chosen.height]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _known(self, key: str, task: ClipTask) -> ClipDetections | None:
        body = self._cache.get(key) if self._cache else None
        if body is None:
            return None
        try:
            found = decode_detections(Message(body, {TYPE_HEADER: "detections"}))
        except DecodeError:
            return None
        # Its place among the videos is this run's.
        place = {"camera_id": task.camera_id, "epoch_started_ns": task.epoch_started_ns, "clip_seq": task.clip_seq}
        return replace(found, header=found.header.model_copy(update=place))

    def _keep(self, key: str, found: ClipDetections) -> None:
        if self._cache is None:
            return
        try:
            self._cache.put(key, encode_detections(found).body)
        except OSError as exc:
            self.uncached = str(exc)


def _pictures(chosen: Chosen) -> Iterator[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]:
    video = chosen.video
    return clip_samples(video.path, video.clip.start_ns, chosen.sample_ns, chosen.width, chosen.height)


def _no_rows() -> Rows:
    return np.empty(0, DETECTION_DTYPE)


def _task(chosen: Chosen, epoch_started_ns: int, clip_seq: int) -> ClipTask:
    video = chosen.video
    return ClipTask(
        node_id=NODE_ID,
        camera_id=video.clip.camera_id,
        epoch=video.clip.epoch,
        epoch_started_ns=epoch_started_ns,
        clip_seq=clip_seq,
        start_ns=video.clip.start_ns,
        duration_ns=video.duration_ns,
        stream=video.stream,
        sample_ns=chosen.sample_ns,
        sample_width=chosen.width,
        sample_height=chosen.height,
        closed_ns=video.end_ns,
    )


def _found(task: ClipTask, model: Model | None, read_ns: tuple[int, ...], rows: Rows, reason: str) -> ClipDetections:
    job = Job(Delivery("", task.camera_id, Message(b""), 1), task, model, 0)
    return detections_of(Ended(job, "clip", read_ns, reason), rows, time.time_ns())
