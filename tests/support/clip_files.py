"""Clips on a pool as a capture leaves them, without a capture: fragmented MP4, their time line begins at 0."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from nodeagent.contract.clip import ClipId, StreamName, clip_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import StoredClip
from nodeagent.infra.storage import Storage
from nodeagent.infra.video import CLIP_TICKS_PER_S

_OPTIONS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000", "flush_packets": "1"}


def cut_clips(
    storage: Storage,
    video: Path,
    starts_ns: Sequence[int],
    *,
    camera_id: str = "gate",
    epoch: int = 7,
    stream: StreamName = "record",
    clip_s: int = 3,
) -> list[StoredClip]:
    """Cut a video with a key frame a second into clips that begin at these times."""
    made = []
    with av.open(str(video)) as source:
        track = source.streams.video[0]
        packets = [packet for packet in source.demux(track) if packet.size]
        rate = round(float(track.average_rate or 0))
        for number, start_ns in enumerate(starts_ns):
            group = packets[number * clip_s * rate : (number + 1) * clip_s * rate]
            clip = ClipId(camera_id=camera_id, epoch=epoch, start_ns=start_ns)
            folder = storage.folder_for(camera_id, start_ns, stream)
            duration_ns = len(group) * NS_PER_S // rate
            path = folder / clip_file_name(clip, duration_ns)
            _write(path, track, group)
            made.append(StoredClip(clip, duration_ns, path))
    return made


def _write(path: Path, track: av.VideoStream, group: Sequence[av.Packet[av.VideoStream]]) -> None:
    with av.open(str(path), "w", format="mp4", options=_OPTIONS) as out:
        target = out.add_stream_from_template(track)
        target.time_base = Fraction(1, CLIP_TICKS_PER_S)
        first = group[0].pts or 0
        for packet in group:
            assert packet.pts is not None and packet.dts is not None and packet.time_base is not None
            scale = CLIP_TICKS_PER_S * packet.time_base
            packet.pts, packet.dts = round((packet.pts - first) * scale), round((packet.dts - first) * scale)
            packet.duration = round(packet.duration * scale)
            packet.time_base = Fraction(1, CLIP_TICKS_PER_S)
            packet.stream = target
            out.mux(packet)
