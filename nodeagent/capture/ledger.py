"""Keeps a camera's account: every instant since recording began is in a clip or in the gap ledger."""

from __future__ import annotations

import logging
from pathlib import Path

from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.gaps import LEAST_GAP_NS, Gap, GapReason, append_gap, began, last_gap_end

log = logging.getLogger(__name__)

#: A gap that lasts is written in pieces of this length, ns.
PIECE_NS = 30 * NS_PER_S
#: Pieces end this far in the past: a stream that comes back may bring frames that are older than now, ns.
PIECE_LAG_NS = 5 * NS_PER_S
#: Longest detail in the ledger, characters.
_DETAIL_MAX = 200
#: Gaps that wait for a disk that takes them, at most: a source that breaks every few seconds for half a day.
WAITING_MAX = 10_000


class Ledger:
    """The account of one camera.

    `accounted_ns` is the end of what is accounted for.  It begins at the end of the last clip or gap of the time
    before, so a restart's gap needs no one who notices the end: it is the difference to the first new clip.  Without
    either it begins where recording was first begun.

    A gap that the state folder's disk refuses waits here and is written when the next one is, or the next clip ends;
    killed meanwhile, it is lost, and `nodeagent clips --verify` names the hole.
    """

    def __init__(self, state_dir: Path, camera_id: str, last_clip_end_ns: int | None, now_ns: int) -> None:
        self._state_dir = state_dir
        self._camera_id = camera_id
        known = [end for end in (last_clip_end_ns, last_gap_end(state_dir, camera_id)) if end is not None]
        self.accounted_ns = max(known) if known else min(began(state_dir, camera_id, now_ns), now_ns)
        self._why = (GapReason.RESTART if known else GapReason.START, "")
        self._out = True
        self._waiting: list[Gap] = []
        self._refused = False
        self.gap_ns = 0

    def outage(self, reason: GapReason, detail: str, now_ns: int) -> None:
        """From now on nothing is recorded, for this reason, until a clip begins."""
        if self._out and reason is not self._why[0]:
            # What has passed belongs to the reason before.
            self.reach(now_ns)
        self._out = True
        self._why = (reason, detail)

    def begin(self, start_ns: int) -> None:
        """A clip begins: what lies before it is a gap."""
        self.reach(start_ns)
        self._out = False
        self._why = (GapReason.TIME_JUMP, "")

    def reach(self, to_ns: int) -> None:
        """What is not accounted for yet before `to_ns` is a gap, for the reason that holds."""
        if to_ns - self.accounted_ns >= LEAST_GAP_NS:
            self.write(self.accounted_ns, to_ns, *self._why)

    def close(self, now_ns: int) -> None:
        """The capture stops: an outage that is running has its reason now, and would be a restart's gap later."""
        if self._out:
            self.reach(now_ns)

    def end(self, end_ns: int) -> None:
        """A clip ended."""
        self.accounted_ns = max(self.accounted_ns, end_ns)
        self._flush()

    def lost(self, from_ns: int, to_ns: int, reason: GapReason, detail: str) -> None:
        """Time that was told as recorded is not: its clip could not be completed."""
        self.write(from_ns, to_ns, reason, detail)

    def tick(self, now_ns: int) -> None:
        """While nothing is recorded: write the gap so far, if it is long enough."""
        to_ns = now_ns - PIECE_LAG_NS
        if self._out and to_ns - self.accounted_ns >= PIECE_NS:
            self.write(self.accounted_ns, to_ns, *self._why)
        else:
            self._flush()

    def write(self, from_ns: int, to_ns: int, reason: GapReason, detail: str) -> None:
        """Append one gap.  A ledger that cannot be written stops no recording: the gap waits."""
        self._wait_with(Gap(from_ns=from_ns, to_ns=to_ns, reason=reason, detail=detail[:_DETAIL_MAX]))
        self.gap_ns += to_ns - from_ns
        self.accounted_ns = max(self.accounted_ns, to_ns)
        log.info(
            "camera %s: %.1f s not recorded (%s)",
            self._camera_id,
            (to_ns - from_ns) / NS_PER_S,
            reason.value,
            extra={"event": "gap", "camera": self._camera_id},
        )
        self._flush()

    def _wait_with(self, gap: Gap) -> None:
        """Queue a gap; it goes on with the one before where that waits, ends where it begins, and has its reason."""
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.to_ns == gap.from_ns and last.reason is gap.reason:
            self._waiting[-1] = last.model_copy(update={"to_ns": gap.to_ns})
            return
        self._waiting.append(gap)
        if len(self._waiting) > WAITING_MAX:
            lost = self._waiting.pop(0)
            log.error(
                "camera %s: a gap of %.1f s is in no ledger: %d wait for the state folder's disk",
                self._camera_id,
                lost.duration_ns / NS_PER_S,
                WAITING_MAX,
                extra={"event": "gap_lost", "camera": self._camera_id},
            )

    def _flush(self) -> None:
        """Write what waits, oldest first."""
        while self._waiting:
            try:
                append_gap(self._state_dir, self._camera_id, self._waiting[0])
            except OSError as exc:
                # Tried again every few seconds, and told once.
                if not self._refused:
                    log.warning(
                        "gap of camera %s waits to be written: %s",
                        self._camera_id,
                        exc.strerror,
                        extra={"event": "gap_waits", "camera": self._camera_id},
                    )
                self._refused = True
                return
            self._waiting.pop(0)
        if self._refused:
            log.info("gaps of camera %s are written again", self._camera_id, extra={"event": "gaps_written"})
            self._refused = False
