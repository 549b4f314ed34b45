"""HLS playlists (RFC 8216) of recorded clips.  Pure.

A clip is a segment: its head is named by `EXT-X-MAP`, its fragments by the segment's address.  Both are made from the
clip's identity, so a playlist costs a look at names and opens no file, however long it is.  Between two clips stands a
discontinuity: the head may differ, and time may be missing; `EXT-X-PROGRAM-DATE-TIME` says the capture time of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from nodeagent.capture.endpoint.moments import iso
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import StoredClip

#: Content type of a playlist.
MEDIA_TYPE = "application/vnd.apple.mpegurl"


def in_turn(clips: Iterable[StoredClip]) -> Iterator[StoredClip]:
    """Clips in order of time, without those whose whole time was shown before: two owners may both have recorded it."""
    shown_ns = 0
    for clip in clips:
        if clip.end_ns > shown_ns:
            shown_ns = clip.end_ns
            yield clip


def playlist(clips: Iterable[StoredClip], query: str, usual_s: float, *, ended: bool) -> str:
    """The playlist as text; addresses in it are relative to its own.

    Args:
        clips: in order of time.
        query: goes behind each address.
        usual_s: length that clips aim at, seconds; a list that grows may not change its longest.
        ended: nothing will be added.
    """
    rows = list(in_turn(clips))
    longest_s = max((clip.duration_ns / NS_PER_S for clip in rows), default=0.0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(math.ceil(2 * usual_s), math.ceil(longest_s))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if ended else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    for number, clip in enumerate(rows):
        address = f"clips/{clip.clip.epoch}/{clip.clip.start_ns}"
        lines += ["#EXT-X-DISCONTINUITY"] if number else []
        lines += [
            f'#EXT-X-MAP:URI="{address}.init.mp4?{query}"',
            f"#EXT-X-PROGRAM-DATE-TIME:{iso(clip.clip.start_ns)}",
            f"#EXTINF:{clip.duration_ns / NS_PER_S:.3f},",
            f"{address}.m4s?{query}",
        ]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"
