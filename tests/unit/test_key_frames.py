"""How far apart key frames are is told in words that stand in `status`."""

from __future__ import annotations

from nodeagent.capture.key_frames import KeyFrames
from nodeagent.contract.ids import NS_PER_S

START = 1_700_000_000 * NS_PER_S


def after(seconds: float, gop_s: float, first_s: float = 0.0) -> KeyFrames:
    """What is known after so long of ten frames a second, key frames so far apart."""
    keys = KeyFrames()
    due = first_s
    for n in range(round(seconds * 10) + 1):
        key = n / 10 >= due
        due += gop_s if key else 0
        keys.add(START + n * NS_PER_S // 10, key=key)
    return keys


def test_key_frames_that_come_often_enough_are_no_matter() -> None:
    keys = after(120, 9.5)
    assert (keys.sparse, keys.missing, keys.awaited) == ("", "", "")


def test_the_interval_of_a_smart_codec_is_told_and_is_no_fault() -> None:
    keys = after(50, 24)
    assert (keys.sparse, keys.missing) == ("key frames every 24 s: clips are that long", "")
    # Nor is a longer one, once it is known: two minutes and a half into a GOP of two.
    assert after(121 + 150, 120).missing == ""
    assert after(240, 100).sparse == "key frames every 100 s: clips are that long"


def test_before_the_interval_is_known_the_time_without_one_is_told() -> None:
    keys = after(14, 24)
    assert keys.sparse == "no key frame for 14 s: the clip is that long"
    assert keys.missing == ""


def test_key_frames_that_end_are_a_fault() -> None:
    assert after(59, 1000).missing == ""
    assert after(69, 1000).missing == "no key frame for 69 s"


def test_a_session_that_begins_without_one_is_told_and_begins_anew_with_the_next_session() -> None:
    keys = after(9, 1, first_s=1000)
    assert keys.awaited == ""
    keys = after(12, 1, first_s=1000)
    assert keys.awaited == "no key frame for 12 s, and before the first nothing is recorded"
    assert (keys.sparse, keys.missing) == ("", "")
    keys.restart()
    assert keys.awaited == ""
    keys.add(START + 90 * NS_PER_S, key=False)
    assert keys.awaited == ""


def test_the_first_interval_does_not_count_the_wait_for_the_first_key_frame() -> None:
    assert after(16, 1, first_s=15).sparse == ""
