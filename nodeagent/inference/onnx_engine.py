"""ONNX Runtime on the CPU: the engine that needs nothing but pip.

Takes models whose input is float32 NCHW, as exporters write it, or uint8 NHWC with the normalisation inside.  Threads
do not spin while they wait: on a server that also decodes video a spinning thread takes the core from who has work.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from nodeagent.contract.errors import BadModel
from nodeagent.inference.description import ModelDescription
from nodeagent.inference.engine import EngineInfo, Numbers, Pixels

#: All that ONNX Runtime raises; its own errors have no common base but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_state.Fail,
    ort_state.EPFail,
    ort_state.EngineError,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoModel,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
    RuntimeError,
    ValueError,
)
#: Only errors reach the log: warnings of a customer's exporter are nothing that an operator can act on.
LOG_ERRORS_ONLY = 3
#: Characters of the library's own words that are passed on.
WORDS_MAX = 160
#: Largest offset (cells) and largest log of a side (cells) of a raw YOLOX head: measured 4 on any picture, where the
#: decoded one has hundreds of pixels.  A side of e^10 cells is wider than any picture.
YOLOX_OFFSET_MAX = 100.0
YOLOX_LOG_MAX = 10.0
#: Largest number among boxes in 0..1, with room for one that hangs over; boxes in pixels reach to the input's far side.
UNIT_BOX_MAX = 2.0
FLOAT_NCHW = "tensor(float)"
BYTE_NHWC = "tensor(uint8)"


class OnnxEngine:
    """One ONNX file in one session.  Its input and output are checked against the description when it is made."""

    def __init__(self, model: ModelDescription, threads: int) -> None:
        """Load the file; one dry run follows in `check_outputs`.

        Raises:
            BadModel: no ONNX file, or its input is not the described one.
        """
        self._model = model
        self._threads = threads
        self._session = _session(model.file, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            raise _wrong(model, "input", "one input", f"{len(inputs)}: {', '.join(i.name for i in inputs)}")
        if len(outputs) != 1:
            raise _wrong(model, "output", "one output", f"{len(outputs)}: {', '.join(o.name for o in outputs)}")
        self._name = inputs[0].name
        self._bytes_in = inputs[0].type == BYTE_NHWC
        self._batch = _check_input(model, inputs[0].type, list(inputs[0].shape))
        if outputs[0].type != FLOAT_NCHW:
            raise _wrong(model, "output", FLOAT_NCHW, outputs[0].type)
        self._outputs: tuple[tuple[int, ...], ...] = ()
        self._sample_s = 0.0
        side = (3, model.input.height, model.input.width)
        self._planes = np.empty(side, np.uint8)
        self._floats = np.empty((self._batch or 1, *side), np.float32)
        self.check_outputs()

    def describe(self) -> EngineInfo:
        """What runs, and where."""
        version = f"onnxruntime {ort.__version__}"
        return EngineInfo(version, "cpu", self._threads, self._batch, self._outputs, self._sample_s)

    def infer(self, batch: Pixels) -> list[Numbers]:
        """Run the model; a model of fixed batch is run as often as it takes.

        Raises:
            BadModel: the engine could not run it.
        """
        if self._batch is None or len(batch) == self._batch:
            return self._run(batch)
        parts = []
        for start in range(0, len(batch), self._batch):
            part = batch[start : start + self._batch]
            full = part if len(part) == self._batch else np.resize(part, (self._batch, *part.shape[1:]))
            parts.append([out[: len(part)] for out in self._run(full)])
        return [np.concatenate(outs) for outs in zip(*parts, strict=True)]

    def prepared(self, batch: Pixels) -> Pixels | Numbers:
        """The batch as the session takes it; a view of a buffer that the next call overwrites."""
        if self._bytes_in:
            return batch
        if len(self._floats) < len(batch):
            self._floats = np.empty((len(batch), *self._planes.shape), np.float32)
        scale = np.float32(self._model.input.scale)
        for sample, out in zip(batch, self._floats, strict=False):
            # Bytes are split into planes first: three times faster than a strided conversion to float.
            cv2.split(sample, [self._planes[0], self._planes[1], self._planes[2]])
            np.copyto(out, self._planes)
            if scale != 1.0:
                np.multiply(out, scale, out=out)
        return self._floats[: len(batch)]

    def run_prepared(self, feed: Pixels | Numbers) -> list[Numbers]:
        """The bare engine call.

        Raises:
            BadModel: the engine could not run it.
        """
        try:
            outputs: list[Numbers] = self._session.run(None, {self._name: feed})
        except ORT_ERRORS as exc:
            raise BadModel(f"{self._model.file}: the engine could not run it: {_words(exc)}") from exc
        return outputs

    def _run(self, batch: Pixels) -> list[Numbers]:
        return self.run_prepared(self.prepared(batch))

    def check_outputs(self) -> None:
        """Run once on a grey picture and compare the output with the description.

        Raises:
            BadModel: another head, another number of labels, or scores that are no scores.
        """
        # A head says a box for every place, whatever is in the picture: grey shows their scale as well as any other.
        # Two samples where any number is allowed: a head exported for one says so here and not in the first clip.
        model, count = self._model, self._batch or 2
        grey = np.full((count, model.input.height, model.input.width, 3), model.input.pad, np.uint8)
        began_s = time.monotonic()
        (out,) = self._run(grey)
        self._sample_s = (time.monotonic() - began_s) / count
        if out.ndim != 3 or out.shape[0] != count:
            raise _wrong(model, "output", f"3 dimensions that begin with the batch {count}", str(list(out.shape)))
        self._outputs = (tuple(out.shape[1:]),)
        scores = _check_yolox(model, out) if model.output.layout == "yolox" else _check_yolov8(model, out)
        # A head without its last sigmoid gives numbers far outside; rounding is let pass.
        if not np.isfinite(scores).all() or scores.min() < -0.01 or scores.max() > 1.01:
            found = f"{scores.min():.3g} to {scores.max():.3g}"
            raise _wrong(model, "output", "scores in 0..1 (sigmoid inside the model)", found)


def file_sha256(path: Path) -> str:
    """The file's sha256 in hex.

    Raises:
        BadModel: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise BadModel(f"{path}: file: expected an ONNX file, cannot be read: {exc.strerror}") from None


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as exc:
        raise BadModel(f"{path}: file: expected an ONNX model, found none: {_words(exc)}") from exc


def _check_input(model: ModelDescription, kind: str, shape: list[int | str | None]) -> int | None:
    """The batch that the model is fixed to, None for any."""
    height, width = model.input.height, model.input.width
    wanted = {FLOAT_NCHW: (3, height, width), BYTE_NHWC: (height, width, 3)}.get(kind)
    if wanted is None:
        raise _wrong(model, "input", f"{FLOAT_NCHW} or {BYTE_NHWC}", kind)
    sides = [side if isinstance(side, int) else want for side, want in zip(shape[1:], wanted, strict=False)]
    if len(shape) != 4 or tuple(sides) != wanted:
        raise _wrong(model, "input", f"[batch, {', '.join(map(str, wanted))}]", str(shape))
    return shape[0] if isinstance(shape[0], int) else None


def _check_yolov8(model: ModelDescription, out: Numbers) -> Numbers:
    rows = out.shape[1]
    if rows != model.row_length:
        if out.shape[2] == model.row_length:
            raise _wrong(model, "output.layout", f"[b, {model.row_length}, n]", f"{list(out.shape)}: transposed")
        raise _wrong(
            model,
            "labels",
            f"an output of [b, 4 + {len(model.labels)} labels, n]",
            f"{list(out.shape)}, which is {rows - 4} labels",
        )
    if (largest := out[:, :4].max()) <= UNIT_BOX_MAX:
        expected = "boxes in pixels of the input"
        raise _wrong(model, "output.layout", expected, f"none above {largest:.3g}: boxes are not in pixels")
    return out[:, 4:]


def _check_yolox(model: ModelDescription, out: Numbers) -> Numbers:
    rows, length = out.shape[1:]
    if rows != model.yolox_rows:
        expected = f"[b, {model.yolox_rows}, 5 + labels] for this input"
        raise _wrong(model, "output.layout", expected, str(list(out.shape)))
    if length != model.row_length:
        expected = f"an output of [b, n, 5 + {len(model.labels)} labels]"
        raise _wrong(model, "labels", expected, f"{list(out.shape)}, which is {length - 5} labels")
    offset, log_side = np.abs(out[..., :2]).max(), out[..., 2:4].max()
    if offset > YOLOX_OFFSET_MAX or log_side > YOLOX_LOG_MAX:
        expected = "a raw head (export without decoding)"
        raise _wrong(model, "output.layout", expected, f"numbers up to {max(offset, log_side):.3g}: already decoded")
    return out[:, :, 4:]


def _wrong(model: ModelDescription, field: str, expected: str, found: str) -> BadModel:
    return BadModel(f"{model.file}: {field}: expected {expected}, found {found}")


def _words(exc: Exception) -> str:
    return " ".join(str(exc).split())[:WORDS_MAX]
