"""A model ready to serve: its description, its engine, and the proof that the two agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nodeagent.contract.errors import BadModel
from nodeagent.inference.description import VERSION_DIGITS, ModelDescription, read_description
from nodeagent.inference.engine import Engine
from nodeagent.inference.onnx_engine import OnnxEngine, file_sha256
from nodeagent.inference.postprocess import BoxFinder
from nodeagent.infra.settings.sections import Settings


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model.

    Attributes:
        description: what its TOML says; `file` is absolute.
        version: as written down, else the first digits of the file's sha256.
        engine: runs it.
        find: makes boxes of what the engine returns.
    """

    description: ModelDescription
    version: str
    engine: Engine
    find: BoxFinder


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a person wants to know of a model that can serve.

    Attributes:
        name: what it calls itself.
        version: as written down, else the first digits of the file's sha256.
        file: the ONNX file.
        sha256: of that file.
        labels: what it finds.
        width: of its input, pixels.
        height: of its input, pixels.
        layout: of its output.
        engine: the library that ran it.
    """

    name: str
    version: str
    file: Path
    sha256: str
    labels: tuple[str, ...]
    width: int
    height: int
    layout: str
    engine: str


def load_model(path: Path, threads: int) -> Model:
    """Load the model that the TOML at `path` describes and run it once.

    Raises:
        BadModel: it cannot serve; names the file, the field, what was expected and what was found.
    """
    return _load(path, threads)[0]


def load_models(settings: Settings) -> dict[str, Model]:
    """Every configured model by its name under `[[models]]`, in the configuration's order.

    Raises:
        BadModel: there is none, or one of them cannot serve.
    """
    if not settings.models:
        raise BadModel("models: expected at least one [[models]], found none")
    return {model.name: load_model(model.file, settings.inference.threads) for model in settings.models}


def check_model(path: Path) -> ModelInfo:
    """As `load_model`, but only says what was found.

    Raises:
        BadModel: it cannot serve; names the file, the field, what was expected and what was found.
    """
    model, sha256 = _load(path, threads=1)
    told = model.description
    return ModelInfo(
        name=told.name,
        version=model.version,
        file=told.file,
        sha256=sha256,
        labels=told.labels,
        width=told.input.width,
        height=told.input.height,
        layout=told.output.layout,
        engine=model.engine.describe().engine,
    )


def _load(path: Path, threads: int) -> tuple[Model, str]:
    description = read_description(path)
    sha256 = file_sha256(description.file)
    if description.sha256 and description.sha256 != sha256:
        raise BadModel(f"{description.file}: sha256: expected {description.sha256}, found {sha256}")
    version = description.version or sha256[:VERSION_DIGITS]
    return Model(description, version, OnnxEngine(description, threads), BoxFinder(description)), sha256
