"""The endpoint's thinking: who may see what, which bytes are meant, how often one may ask, playlists."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.capture.endpoint.access import Doorkeeper, Scope
from nodeagent.capture.endpoint.buckets import CLIENTS_MAX, Bucket, Clients
from nodeagent.capture.endpoint.byte_ranges import Slice, http_date, same, slice_of, unchanged
from nodeagent.capture.endpoint.growing import Growing
from nodeagent.capture.endpoint.moments import iso, parse_moment
from nodeagent.capture.endpoint.playlist import appended, playlist
from nodeagent.contract.clip import ClipId
from nodeagent.infra.clip_folders import StoredClip
from nodeagent.infra.settings.endpoint import TokenSettings

S = 1_000_000_000
T = 1_795_494_669 * S
TOKENS = [TokenSettings.model_validate({"name": name, "token": name * 32}) for name in ("a", "b")]


@pytest.mark.parametrize(
    ("header", "size", "found"),
    [
        (None, 10, Slice(0, 10)),
        ("bytes=0-0", 10, Slice(0, 1)),
        ("bytes=2-", 10, Slice(2, 10)),
        ("bytes=-3", 10, Slice(7, 10)),
        ("bytes=-30", 10, Slice(0, 10)),
        ("Bytes = 8-99", 10, Slice(8, 10)),
        ("bytes=10-", 10, None),
        ("bytes=-0", 10, None),
        ("bytes=5-2", 10, Slice(0, 10)),
        ("bytes=0-1,4-5", 10, Slice(0, 10)),
        ("items=0-1", 10, Slice(0, 10)),
        ("bytes=-", 10, Slice(0, 10)),
        ("bytes=0-", 0, None),
    ],
)
def test_a_range_is_the_bytes_that_the_standard_means(header: str | None, size: int, found: Slice | None) -> None:
    assert slice_of(header, size) == found


def test_conditions() -> None:
    modified = http_date(T)
    assert modified == "Tue, 24 Nov 2026 04:31:09 GMT"
    assert same(None, '"e"', modified) and same('"e"', '"e"', modified) and same(modified, '"e"', modified)
    assert not same('"other"', '"e"', modified)
    assert unchanged('"x", W/"e"', None, '"e"', modified) and unchanged("*", None, '"e"', modified)
    assert not unchanged('"x"', modified, '"e"', modified), "the tag counts, not the date"
    assert unchanged(None, modified, '"e"', modified)
    assert not unchanged(None, http_date(T - S), '"e"', modified)
    assert not unchanged(None, "never", '"e"', modified)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1795494669000000001", T + 1),
        ("2026-11-24T04:31:09Z", T),
        ("2026-11-24T12:31:09.5+08:00", T + S // 2),
        ("2026-11-24T12:31:09 08:00", T),
    ],
)
def test_times_are_ns_or_iso_with_an_offset(text: str, ns: int) -> None:
    assert parse_moment(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", "1795494669", "1795494669000", "2026-11-24T04:31:09", "2026-11-24", "now", "9" * 19, "²" * 19, "-1" * 9],
)
def test_other_times_are_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected UTC nanoseconds"):
        parse_moment(text)


def test_iso_and_back() -> None:
    assert iso(T + 123_000_000) == "2026-11-24T04:31:09.123Z"
    assert parse_moment(iso(T + 123_000_000)) == T + 123_000_000


def test_a_token_is_known_by_its_whole_text() -> None:
    door = Doorkeeper(TOKENS)
    assert door.holder("Bearer " + "b" * 32) == "b"
    assert door.holder("bearer " + "a" * 32) == "a"
    for wrong in ("Bearer " + "a" * 31, "Bearer " + "a" * 33, "Basic " + "a" * 32, "a" * 32, "Bearer", "Bearer ä"):
        assert door.holder(wrong) is None


def test_a_link_is_for_its_scope_until_it_expires_and_while_its_token_lives() -> None:
    door, scope = Doorkeeper(TOKENS), Scope("gate", "record", T, T + 60 * S)
    ticket = door.ticket("a", scope, T // S + 60)
    assert door.admits(ticket, scope, T) == ""
    assert "expired" in door.admits(ticket, scope, T + 60 * S)
    for other in (
        Scope("door", "record", T, T + 60 * S),
        Scope("gate", "analyse", T, T + 60 * S),
        Scope("gate", "record", T - 1, T + 60 * S),
        Scope("gate", "record", T, T + 61 * S),
        Scope("gate", "record", T, None),
    ):
        assert "changed" in door.admits(ticket, other, T)
    assert "not known" in Doorkeeper(TOKENS[1:]).admits(ticket, scope, T)
    forged = type(ticket)("b", ticket.expires_s, ticket.signature)
    assert "changed" in door.admits(forged, scope, T)
    assert "a" * 32 not in ticket.signature


def test_a_bucket_gives_what_flowed_in_and_says_when_to_come_back() -> None:
    bucket = Bucket(per_s=2.0, most=4.0, left=4.0, at_s=0.0)
    assert [bucket.take(1.0, 0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert bucket.take(1.0, 0.5) == 0.0
    assert bucket.take(1.0, 0.4) == 0.5, "a clock that went back gives nothing"
    assert bucket.lend(6.0, 100.0) == 1.0
    assert bucket.lend(1.0, 100.0) == 1.5


def test_clients_do_not_share_and_strangers_are_forgotten() -> None:
    clients = Clients(1.0, 1.0)
    assert (clients.take("a", 0.0), clients.take("b", 0.0)) == (0.0, 0.0)
    assert clients.take("a", 0.0) == 1.0
    for number in range(CLIENTS_MAX):
        clients.take(f"stranger {number}", 0.0)
    assert clients.take("a", 0.0) == 0.0


def stored(start_s: float, length_s: float, epoch: int = 7) -> StoredClip:
    clip = ClipId(camera_id="gate", epoch=epoch, start_ns=T + round(start_s * S))
    return StoredClip(clip, round(length_s * S), Path())


def test_a_playlist_names_heads_fragments_and_times_and_shows_no_second_twice() -> None:
    rows = appended([], [stored(0, 5), stored(1, 4, 8), stored(5, 5.5), stored(60, 20)])
    text = playlist(rows, "q=1", 5.0, ended=True)
    lines = text.splitlines()
    assert lines[:2] == ["#EXTM3U", "#EXT-X-VERSION:7"]
    assert "#EXT-X-TARGETDURATION:20" in lines
    assert [line for line in lines if line.startswith("clips/")] == [f"clips/7/{T + s * S}.m4s?q=1" for s in (0, 5, 60)]
    assert lines.count("#EXT-X-DISCONTINUITY") == 2
    assert f'#EXT-X-MAP:URI="clips/7/{T + 60 * S}.init.mp4?q=1"' in lines
    assert "#EXT-X-PROGRAM-DATE-TIME:2026-11-24T04:32:09.000Z" in lines
    assert "#EXTINF:5.500," in lines
    assert lines[-1] == "#EXT-X-ENDLIST"


def test_a_playlist_that_grows_has_no_end_and_keeps_its_target() -> None:
    first = playlist([], "", 5.0, ended=False)
    later = playlist(appended([], [stored(0, 9.9)]), "", 5.0, ended=False)
    for text in (first, later):
        assert "#EXT-X-TARGETDURATION:10" in text and "#EXT-X-PLAYLIST-TYPE:EVENT" in text
        assert "ENDLIST" not in text


def test_what_a_growing_playlist_showed_stays_and_new_clips_come_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    growing, scope = Growing(), Scope("gate", "record", T, None)

    def starts(*clips_s: float, scope: Scope = scope, ended: bool = False) -> list[float]:
        def after(after_ns: int) -> list[StoredClip]:
            return [clip for at_s in clips_s if (clip := stored(at_s, 5)).clip.start_ns > after_ns]

        return [(row.start_ns - T) / S for row in growing.rows(scope, after, ended=ended)]

    assert starts(0, 5, 10) == [0, 5, 10]
    # Retention took the first one, and the disk of the fourth one is slow.
    assert starts(5, 10, 20) == [0, 5, 10, 20]
    assert starts(5, 10, 15, 20, 25) == [0, 5, 10, 20, 25]
    other = Scope("door", "record", T, T + 30 * S)
    assert starts(5, 10, 15, scope=other) == [5, 10, 15]
    assert starts(10, 15, 20, scope=other, ended=True) == [5, 10, 15, 20], "also when it is complete now"
    monkeypatch.setattr("nodeagent.capture.endpoint.growing.SEGMENTS_MOST", 6)
    assert starts(5, scope=other) == [5, 10, 15]
    assert starts(10, 15, 20, 25) == [10, 15, 20, 25], "that one was forgotten: the other was asked for later"


def test_two_who_ask_at_once_see_the_same_playlist() -> None:
    growing, scope = Growing(), Scope("gate", "record", T, None)

    def while_another_asks(_after_ns: int) -> list[StoredClip]:
        growing.rows(scope, lambda _: [stored(0, 5), stored(10, 5)], ended=False)
        return [stored(0, 5), stored(5, 5), stored(10, 5), stored(15, 5)]

    assert [row.start_ns - T for row in growing.rows(scope, while_another_asks, ended=False)] == [0, 10 * S, 15 * S]
