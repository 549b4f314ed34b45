"""Which rules each judge process judges by: a file of each that it writes when that changes, for who asks.

The file says what the judge has taken over, not what it was told: it is written after the rules before were ended and
their alarms published.  Killed in between, the judge writes it anew when it starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.rule import RuleBase
from nodeagent.infra.files import write_atomically

#: Digits of a rule's version that are shown: two versions of a rule differ.
VERSION_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Applied:
    """What one judge process judges by.

    Attributes:
        since_ns: wall clock, UTC ns, since when.
        cameras: by camera, its rules' versions by rule.
    """

    since_ns: int
    cameras: Mapping[str, Mapping[str, str]]


def version_of(rule: RuleBase) -> str:
    """Version of a rule by its contents: the same wherever it is read, another when any value is another."""
    return hashlib.sha256(rule.model_dump_json().encode()).hexdigest()[:VERSION_DIGITS]


def applied_path(state_dir: Path, shard: int) -> Path:
    """The file of the judge process `shard`."""
    return state_dir / "applied" / f"judge-{shard}.json"


def write_applied(path: Path, cameras: Iterable[CameraSpec], since_ns: int) -> None:
    """Say that these cameras are judged by their rules from now on.

    Raises:
        OSError: the disk refuses.
    """
    versions = {spec.camera_id: {rule.rule_id: version_of(rule) for rule in spec.rules} for spec in cameras}
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps({"v": 1, "since_ns": since_ns, "cameras": versions}).encode())


def read_applied(path: Path) -> Applied:
    """Read what `write_applied` wrote.

    Raises:
        FileNotFoundError: that process never judged.
        DecodeError: the file is none of these.
    """
    try:
        doc = json.loads(path.read_bytes())
        cameras = {
            str(name): {str(rule): str(at) for rule, at in rules.items()} for name, rules in doc["cameras"].items()
        }
        return Applied(int(doc["since_ns"]), cameras)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DecodeError(f"{path.name}: {type(exc).__name__}: {exc}") from None
