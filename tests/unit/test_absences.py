"""When a camera whose key is gone goes back to the pool: after ten seconds in which Redis answered throughout."""

from __future__ import annotations

from nodeagent.contract.ownership import Owner
from nodeagent.infra.ownership.absences import GONE_S, Absences

OWNER = Owner(node_id="n1", incarnation="0" * 16, epoch=1)
LATER = Owner(node_id="n1", incarnation="0" * 16, epoch=2)


def test_a_key_counts_as_gone_after_its_time_and_not_before() -> None:
    absences = Absences()
    assert absences.look({"a": OWNER}, 100.0) == {}
    assert absences.look({"a": OWNER, "b": OWNER}, 100.0 + GONE_S - 0.1) == {}
    assert absences.look({"a": OWNER, "b": OWNER}, 100.0 + GONE_S) == {"a": OWNER}
    assert absences.look({"a": OWNER, "b": OWNER}, 100.0 + 2 * GONE_S) == {"a": OWNER, "b": OWNER}


def test_a_key_that_came_back_or_changed_its_owner_counts_anew() -> None:
    absences = Absences()
    absences.look({"back": OWNER, "moved": OWNER}, 0.0)
    absences.look({"moved": LATER}, 5.0)
    assert absences.look({"back": OWNER, "moved": LATER}, 5.0 + GONE_S - 0.1) == {}
    assert absences.look({"back": OWNER, "moved": LATER}, 5.0 + GONE_S) == {"moved": LATER}


def test_a_redis_that_was_away_starts_the_count_anew() -> None:
    absences = Absences()
    absences.look({"a": OWNER}, 0.0)
    absences.reset()
    assert absences.look({"a": OWNER}, GONE_S) == {}
    assert absences.look({"a": OWNER}, 2 * GONE_S) == {"a": OWNER}
