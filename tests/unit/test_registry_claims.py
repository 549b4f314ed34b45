"""What a node's own word is worth, by what others know of the camera."""

from __future__ import annotations

import pytest

from nodeagent.contract.ownership import Owner, TaskPhase, TaskStatus
from registry.core.claims import Known, judge
from registry.core.memories import owned

LOST = frozenset({"gate"})


def owner(node_id: str, epoch: int) -> Owner:
    return Owner(node_id=node_id, incarnation="a" * 16, epoch=epoch)


def status(phase: TaskPhase, last: Owner | None) -> dict[str, TaskStatus]:
    return {"gate": TaskStatus(phase=phase, owner=last, since_ms=1)}


OWNED, POOLED = TaskPhase.OWNED, TaskPhase.POOLED


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        # It was last given to this node, by whatever life of it.
        (Known(status(OWNED, owner("n1", 5)), {}, {}), "believed"),
        (Known(status(POOLED, owner("n1", 5)), {}, {}), "believed"),
        (Known({}, status(OWNED, owner("n1", 5)), {}), "believed"),
        (Known({}, {}, {"gate": owner("n1", 5)}), "believed"),
        # A failover lost the grant, which the registry or the database remembers.
        (Known(status(OWNED, owner("n2", 4)), status(OWNED, owner("n1", 5)), {}), "believed"),
        (Known(status(OWNED, owner("n2", 4)), {}, {"gate": owner("n1", 5)}), "believed"),
        # It is another's, who keeps it above the epoch that is claimed.
        (Known(status(OWNED, owner("n2", 4)), {}, {}, LOST), "doubted"),
        (Known(status(OWNED, owner("n2", 4)), status(OWNED, owner("n2", 4)), {"gate": owner("n2", 4)}), "doubted"),
        # It is nobody's, and gets a new owner anyway.
        (Known(status(POOLED, owner("n2", 4)), {}, {}, LOST), ""),
        (Known(status(POOLED, None), {}, {}, LOST), ""),
        (Known({}, status(OWNED, owner("n2", 4)), {}, LOST), ""),
        (Known({}, {}, {"gate": owner("n2", 4)}, LOST), ""),
        # Nobody but nodes knows anything: when a term begins they are believed, and later not.
        (Known({}, {}, {}, LOST), "believed"),
        (Known({}, {}, {}), ""),
    ],
)
def test_a_claim_counts_where_others_know_that_the_camera_was_last_the_nodes(known: Known, verdict: str) -> None:
    claim = owner("n1", 9)
    judged = judge([("gate", claim)], known)
    assert judged.memories == ([owned("gate", claim)] if verdict == "believed" else [])
    assert judged.doubted == ([("gate", claim)] if verdict == "doubted" else [])
