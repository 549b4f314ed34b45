"""HLS playlists (RFC 8216) of recorded clips.  Pure.

A clip is a segment: its head is named by `EXT-X-MAP`, its fragments by the segment's address.  Both are made from the
clip's identity, so a playlist costs a look at names and opens no file, however long it is.  Between two clips stands a
discontinuity: the head may differ, and time may be missing; `EXT-X-PROGRAM-DATE-TIME` says the capture time of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nodeagent.capture.endpoint.moments import iso
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import StoredClip

#: Content type of a playlist.
MEDIA_TYPE = "application/vnd.apple.mpegurl"


class Segment(NamedTuple):
    """A clip in a playlist; times in ns, the start in UTC."""

    epoch: int
    start_ns: int
    duration_ns: int

    @property
    def end_ns(self) -> int:
        """Capture time at which it ends."""
        return self.start_ns + self.duration_ns


def appended(shown: Sequence[Segment], clips: Iterable[StoredClip]) -> list[Segment]:
    """What was shown, then each clip that begins and ends later: two owners may both have recorded some time.

    Args:
        shown: from an earlier look.
        clips: in order of time.
    """
    rows = list(shown)
    for clip in clips:
        if not rows or (clip.clip.start_ns > rows[-1].start_ns and clip.end_ns > rows[-1].end_ns):
            rows.append(Segment(clip.clip.epoch, clip.clip.start_ns, clip.duration_ns))
    return rows


def playlist(rows: Sequence[Segment], query: str, usual_s: float, *, ended: bool) -> str:
    """The playlist as text; addresses in it are relative to its own.

    Args:
        rows: in order of time.
        query: goes behind each address.
        usual_s: length that clips aim at, seconds; a list that grows may not change its longest.
        ended: nothing will be added.
    """
    longest_s = max((row.duration_ns / NS_PER_S for row in rows), default=0.0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(math.ceil(2 * usual_s), math.ceil(longest_s))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if ended else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    for number, row in enumerate(rows):
        address = f"clips/{row.epoch}/{row.start_ns}"
        lines += ["#EXT-X-DISCONTINUITY"] if number else []
        lines += [
            f'#EXT-X-MAP:URI="{address}.init.mp4?{query}"',
            f"#EXT-X-PROGRAM-DATE-TIME:{iso(row.start_ns)}",
            f"#EXTINF:{row.duration_ns / NS_PER_S:.3f},",
            f"{address}.m4s?{query}",
        ]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"
