"""A model's TOML: all that an ONNX file does not say of itself.

Unknown keys are refused, so a spelling mistake never silently becomes a default.  `docs/models.md` explains the fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
from pydantic import Field, ValidationError, field_validator, model_validator

from nodeagent.contract.errors import BadModel
from nodeagent.contract.ids import FrozenStrict, ModelName

#: Cell sizes of a YOLOX head, pixels of the model's input, in the order of its rows.
YOLOX_STRIDES = (8, 16, 32)
#: Largest side of a model's input, pixels: beyond the largest sample there is nothing to see.
SIDE_MAX = 4096
#: Most labels: more than any public detector has, and far inside the int16 that carries a label.
LABELS_MAX = 10_000
#: Most boxes kept of one sample.
BOXES_MAX = 300
#: Digits of the file's sha256 that stand for a version nobody wrote down.
VERSION_DIGITS = 12


class InputDescription(FrozenStrict):
    """`[input]`: how a sample becomes the model's input."""

    #: Width of the model's input, pixels.
    width: Annotated[int, Field(ge=8, le=SIDE_MAX)]
    #: Height of the model's input, pixels.
    height: Annotated[int, Field(ge=8, le=SIDE_MAX)]
    #: Order of the colour channels.
    colour: Literal["rgb", "bgr"] = "rgb"
    #: What a byte is multiplied with: 1 for models that want 0..255, "1/255" for those that want 0..1.
    scale: Annotated[float, Field(gt=0.0, le=1.0)] = 1 / 255
    #: Where the picture lies in the input when the two differ in shape.
    letterbox: Literal["centre", "top_left"] = "centre"
    #: Byte that fills the rest.
    pad: Annotated[int, Field(ge=0, le=255)] = 114

    @field_validator("scale", mode="before")
    @classmethod
    def _fraction(cls, scale: Any) -> Any:
        return 1 / 255 if scale == "1/255" else scale


class OutputDescription(FrozenStrict):
    """`[output]`: what the model's numbers mean and which of them count."""

    #: `yolov8`: [batch, 4 + labels, n], boxes in pixels of the input.  `yolox`: [batch, n, 5 + labels], raw grid.
    layout: Literal["yolov8", "yolox"]
    #: Least score of a box.
    score_threshold: Annotated[float, Field(ge=0.01, le=1.0)] = 0.4
    #: Overlap (intersection over union) above which the weaker of two boxes of one label goes.
    nms_iou: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    #: Most boxes of one sample; the best stay.
    max_boxes: Annotated[int, Field(ge=1, le=BOXES_MAX)] = 100


class ModelDescription(FrozenStrict):
    """One model's TOML."""

    #: What the model calls itself in detections and alarms.
    name: ModelName
    #: Version in detections and alarms; empty: the first digits of the file's sha256.
    version: Annotated[str, Field(max_length=64)] = ""
    #: ONNX file, relative to the TOML.
    file: Path
    #: The file's sha256, checked when given.
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    #: What the model finds, in the order of its scores.
    labels: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(min_length=1)]
    input: InputDescription
    output: OutputDescription

    @model_validator(mode="after")
    def _consistent(self) -> ModelDescription:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: expected different names, found one twice")
        if len(self.labels) > LABELS_MAX:
            raise ValueError(f"labels: expected at most {LABELS_MAX}, found {len(self.labels)}")
        sides = (self.input.width, self.input.height)
        if self.output.layout == "yolox" and any(side % YOLOX_STRIDES[-1] for side in sides):
            raise ValueError(f"input: expected multiples of {YOLOX_STRIDES[-1]} for layout yolox, found {sides}")
        return self

    @property
    def row_length(self) -> int:
        """Numbers that the model says of one box."""
        return len(self.labels) + (5 if self.output.layout == "yolox" else 4)

    @property
    def yolox_rows(self) -> int:
        """Rows of a YOLOX head for this input."""
        return sum((self.input.width // stride) * (self.input.height // stride) for stride in YOLOX_STRIDES)


def read_description(path: Path) -> ModelDescription:
    """Read a model's TOML; its `file` comes back absolute.

    Raises:
        BadModel: it cannot be read, is no TOML, or has faults; names every one.
    """
    try:
        doc = tomli.loads(path.read_bytes().decode("utf-8"))
        description = ModelDescription.model_validate(doc)
    except OSError as exc:
        raise BadModel(f"{path}: expected a model's TOML, cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise BadModel(f"{path}: expected UTF-8 text, byte {exc.start} is none") from None
    except tomli.TOMLDecodeError as exc:
        raise BadModel(f"{path}: expected TOML: {exc}") from None
    except ValidationError as exc:
        raise BadModel(f"{path}: {_faults(exc)}") from None
    return description.model_copy(update={"file": path.resolve().parent / description.file})


def _faults(exc: ValidationError) -> str:
    """Every fault with its field, what was expected and what was found, in one line."""
    told = []
    for error in exc.errors(include_url=False):
        where = ".".join(str(part) for part in error["loc"])
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "missing":
            told.append(f"{where}: expected, but missing")
        elif error["type"] == "extra_forbidden":
            told.append(f"{where}: unknown key")
        elif not where:
            told.append(message)
        else:
            told.append(f"{where}: {message}, found {error['input']!r:.60}")
    return "; ".join(told)
