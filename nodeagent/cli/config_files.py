"""What a configuration names on this machine: models that must load, videos that must exist, disks with a mark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nodeagent.capture.endpoint.certificate import certificate_faults
from nodeagent.capture.opening import file_path
from nodeagent.contract.errors import BadModel, Fault
from nodeagent.inference.model import check_model
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.storage import is_pool


def missing_files(settings: Settings) -> list[Fault]:
    """A fault for each model that cannot serve, each label that its model has not, and each video that is not there."""
    faults: list[Fault] = []
    labels: dict[str, tuple[str, ...]] = {}
    for i, model in enumerate(settings.models):
        found = _labels(model.file)
        if isinstance(found, str):
            faults.append(Fault(f"models[{i}].file", found, repr(str(model.file))))
        else:
            labels[model.name] = found
    certificates = certificate_faults(settings.endpoint, settings.peers)
    return [*faults, *unknown_labels(settings, labels), *_videos(settings), *certificates]


def unmarked_disks(settings: Settings) -> list[str]:
    """A sentence for each disk of `[[pool]]` that carries no mark; no fault, for it may not be mounted yet."""
    return [
        f"pool[{i}].path: {pool.path} is not marked; run `nodeagent pool init {pool.path}` once it is mounted"
        for i, pool in enumerate(settings.pool)
        if not is_pool(pool.path)
    ]


def _labels(file: Path) -> tuple[str, ...] | str:
    """Labels of the model, or why it cannot serve."""
    if not file.is_file():
        return "expected the model's TOML, but there is no such file"
    try:
        return check_model(file).labels
    except BadModel as exc:
        return str(exc)


def unknown_labels(settings: Settings, known: dict[str, tuple[str, ...]]) -> Iterator[Fault]:
    """Labels that a rule waits for and its model never gives: such a rule would be silent for ever."""
    for i, camera in enumerate(settings.cameras):
        labels = known.get(camera.model or settings.models[0].name)
        for j, rule in enumerate(camera.rules):
            for key, names in rule.named_labels.items():
                for k, label in enumerate(names):
                    if labels is not None and label not in labels:
                        where = f"cameras[{i}].rules[{j}].{key}[{k}]"
                        yield Fault(where, f"expected one of the model's labels, {list(labels)}", repr(label))


def _videos(settings: Settings) -> Iterator[Fault]:
    for i, camera in enumerate(settings.cameras):
        for key, stream in (("record", camera.record), ("analyse", camera.analyse)):
            if stream is None or not stream.is_file:
                continue
            path = file_path(stream.url.get_secret_value())
            if not Path(path).is_file():
                # With an `@` in it, it may be a URL whose scheme was forgotten, password and all.
                shown = "" if "@" in path else repr(path)
                yield Fault(f"cameras[{i}].{key}.url", "expected a video, but there is no such file", shown)
