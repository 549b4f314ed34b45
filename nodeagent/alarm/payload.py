"""The JSON that targets get.  Pure.  `docs/push.md` describes it field by field."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from nodeagent.alarm.store import Cutting
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow

#: Version of the JSON's layout.
PAYLOAD_VERSION: Final = 1
#: Header with the alarm's key: the same for every resend.
KEY_HEADER: Final = "Idempotency-Key"
#: Header with the body's signature: `sha256=<hex>`.
SIGNATURE_HEADER: Final = "X-Nodeagent-Signature"


def signature(body: bytes, secret: str) -> str:
    """HMAC-SHA256 of the body as sent."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def stamp(ns: int | None, zone: tzinfo = UTC) -> str | None:
    """ISO 8601 with milliseconds and the zone's offset (`Z` for UTC); exact, so no float is in it."""
    if ns is None:
        return None
    whole = datetime.fromtimestamp(ns // NS_PER_S, zone)
    exact = whole.replace(microsecond=ns % NS_PER_S // NS_PER_MS * 1000)
    return exact.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def payload(row: AlarmRow, cutting: Cutting, site: str, zone: tzinfo, camera_name: str) -> dict[str, Any]:
    """The alarm as the outside sees it."""
    times = {
        "started": row.started_ns,
        "confirmed": row.confirmed_ns,
        "ended": row.ended_ns,
    }
    return {
        "v": PAYLOAD_VERSION,
        "dedup_key": row.dedup_key,
        "kind": row.kind,
        "site": site,
        "node": row.node_id,
        "camera": {"id": row.camera_id, "name": camera_name or row.camera_id},
        "rule": {"id": row.rule_id, "kind": row.rule_kind},
        "zone": row.zone,
        "severity": row.severity,
        "time": {name: stamp(ns) for name, ns in times.items()},
        "local_time": {name: stamp(ns, zone) for name, ns in times.items()},
        "time_zone": str(zone),
        "summary": row.summary or None,
        "subjects": row.subjects,
        "evidence": row.evidence.model_dump(mode="json"),
        "replay": _replay(row, cutting),
        "snapshot": {"path": cutting.snapshot_path, "sha256": cutting.snapshot_sha256},
        "timings_ns": dict(row.timings),
    }


def _replay(row: AlarmRow, cutting: Cutting) -> dict[str, Any]:
    return {
        "path": cutting.replay_path,
        "sha256": cutting.replay_sha256,
        "start": stamp(cutting.replay_start_ns),
        "seconds": _seconds(cutting.replay_length_ns or 0),
        "wanted_seconds": _seconds(row.replay_to_ns - row.replay_from_ns),
        "partial": bool(cutting.partial_reason),
        "reason": cutting.partial_reason,
        "missing_seconds": _seconds(cutting.missing_ns),
    }


def _seconds(ns: int) -> float:
    return round(ns / NS_PER_S, 3)


def body_of(doc: dict[str, Any]) -> str:
    """The JSON text that is sent and signed."""
    return json.dumps(doc, ensure_ascii=False, separators=(",", ":"))
