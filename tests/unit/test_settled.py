"""The first packets of a session: when each was sent, though they came at once or without a stamp."""

from __future__ import annotations

import av

from nodeagent.capture.source import UNSTAMPED_HELD, Arrived, settled
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

T0 = 1_700_000_000 * NS_PER_S


def arrived(arrival_ms: int, stamp_ms: int | None) -> Arrived:
    return Arrived(av.Packet(b"x"), T0 + arrival_ms * NS_PER_MS, None if stamp_ms is None else stamp_ms * NS_PER_MS)


def times(*timed: tuple[Arrived, bool]) -> list[int]:
    """When they were sent, ms after the first arrival."""
    return [(one.arrival_ns - T0) // NS_PER_MS for one in settled(iter(timed))]


def test_packets_that_came_at_once_stand_where_their_stamps_say() -> None:
    burst = [(arrived(0, 40 * n), True) for n in range(5)]
    assert times(*burst, (arrived(40, 200), False), (arrived(85, 240), False)) == [-160, -120, -80, -40, 0, 40, 85]


def test_a_first_packet_without_a_stamp_waits_for_the_second_also_when_nothing_was_buffered() -> None:
    assert times((arrived(0, None), False), (arrived(7, 3000), False), (arrived(50, 3040), False)) == [-33, 7, 50]
    assert times((arrived(0, None), False), (arrived(7, 3000), True), (arrived(47, 3040), False)) == [-33, 7, 47]


def test_a_stream_without_stamps_is_not_held_up() -> None:
    timed = iter([(arrived(40 * n, None), False) for n in range(50)])
    given = settled(timed)
    assert next(given).arrival_ns == T0
    assert len(list(timed)) == 50 - UNSTAMPED_HELD


def test_a_first_packet_without_a_stamp_waits_for_the_first_picture_that_is_shown_after_it() -> None:
    # A key frame, then the picture that the third refers to.
    later, next_shown = arrived(40, 3120), arrived(80, 3040)
    later.packet.pts, next_shown.packet.pts = 3120, 3040
    later.packet.dts, next_shown.packet.dts = None, 3040
    assert times((arrived(0, None), False), (later, False), (next_shown, False)) == [-80, 40, -40]
