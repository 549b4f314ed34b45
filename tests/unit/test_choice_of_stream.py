"""Which stream is analysed, the camera's clock, and the brightness of samples."""

from __future__ import annotations

import struct
from typing import cast

import av
import numpy as np
import pytest
from av.packet import PacketSideData, packet_sidedata_type_from_literal

from nodeagent.capture.camera_times import READ_EVERY, STEADY_NS, CameraTimes
from nodeagent.capture.chooser import PATIENCE_S, RELAPSE_S, TRUST_S, Chooser
from nodeagent.capture.luma import STEP, LumaMeter
from nodeagent.capture.sender_clock import JUMP_NS, WINDOW_NS, SenderClock
from nodeagent.capture.timeline import EXACT_DRIFT_NS, Timeline
from nodeagent.capture.timeline import WINDOW_NS as DELAY_WINDOW_NS
from nodeagent.contract.clip import ClipTask, SampleLuma
from nodeagent.contract.codec import decode_clip_task, encode_clip_task
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

T0 = 1_700_000_000 * NS_PER_S
HOUR = 3600 * NS_PER_S


def test_the_main_stream_is_analysed_after_patience_and_the_sub_stream_again_after_trust() -> None:
    chooser = Chooser(now_s=100.0)
    looks = [
        (False, 100.0, "analyse"),
        (False, 100.0 + PATIENCE_S - 0.1, "analyse"),
        (False, 100.0 + PATIENCE_S, "record"),
        (True, 120.0, "record"),
        (True, 120.0 + TRUST_S - 0.1, "record"),
        # It went away again: trust begins anew.
        (False, 130.0, "record"),
        (True, 131.0, "record"),
        (True, 131.0 + TRUST_S, "analyse"),
        # Back within patience.
        (False, 150.0, "analyse"),
        (True, 150.0 + PATIENCE_S - 0.1, "analyse"),
        (False, 160.0, "analyse"),
        (False, 160.0 + PATIENCE_S, "record"),
    ]
    assert [chooser.look(delivers=delivers, now_s=now_s) for delivers, now_s, _ in looks] == [c for *_, c in looks]


def test_a_sub_stream_that_fails_soon_after_its_return_must_deliver_for_longer() -> None:
    chooser, now_s, trusts = Chooser(now_s=0.0), 0.0, []
    for _ in range(9):
        now_s += PATIENCE_S
        while chooser.look(delivers=False, now_s=now_s) == "analyse":
            now_s += 1.0
        since_s = now_s
        while chooser.look(delivers=True, now_s=now_s) == "record":
            now_s += 1.0
        trusts.append(now_s - since_s)
    assert trusts == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    now_s += RELAPSE_S
    assert chooser.look(delivers=False, now_s=now_s) == "analyse"
    assert chooser.look(delivers=False, now_s=now_s + PATIENCE_S) == "record"
    chooser.look(delivers=True, now_s=now_s + PATIENCE_S)
    assert chooser.look(delivers=True, now_s=now_s + PATIENCE_S + TRUST_S) == "analyse"


def test_a_sub_stream_is_analysed_at_once_when_the_main_one_is_away_too() -> None:
    chooser = Chooser(now_s=0.0)
    # Nobody is there to stand in: the sub-stream stays the one that is analysed from its first key frame on.
    assert chooser.look(delivers=False, now_s=PATIENCE_S, main_delivers=False) == "analyse"
    assert chooser.look(delivers=False, now_s=PATIENCE_S + 1, main_delivers=True) == "record"
    assert chooser.look(delivers=True, now_s=PATIENCE_S + 2, main_delivers=True) == "record"
    assert chooser.look(delivers=True, now_s=PATIENCE_S + 3, main_delivers=False) == "analyse"
    assert chooser.look(delivers=True, now_s=PATIENCE_S + 4, main_delivers=True) == "analyse"
    # The main stream stood in, and went away as well.
    assert chooser.look(delivers=False, now_s=20.0, main_delivers=True) == "analyse"
    assert chooser.look(delivers=False, now_s=20.0 + PATIENCE_S, main_delivers=True) == "record"
    assert chooser.look(delivers=False, now_s=30.0, main_delivers=False) == "analyse"


def test_the_senders_clock_takes_the_least_delay_and_follows_its_drift() -> None:
    clock, chance = SenderClock(), np.random.default_rng(1)
    for n in range(2000):
        camera_ns = T0 + n * 40 * NS_PER_MS
        arrival_ns = camera_ns + HOUR + 5 * NS_PER_MS + int(chance.exponential(20 * NS_PER_MS))
        made_ns = clock.arrival_ns(camera_ns, arrival_ns)
        assert camera_ns + HOUR + 5 * NS_PER_MS <= made_ns <= arrival_ns
        if n >= 100:
            assert made_ns - camera_ns - HOUR < 8 * NS_PER_MS
    # The network became slower for good: followed after two windows.
    slow = [clock.arrival_ns(t, t + HOUR + 300 * NS_PER_MS) - t for t in (camera_ns + k * WINDOW_NS for k in (1, 2, 3))]
    assert slow[-1] == HOUR + 300 * NS_PER_MS


def test_a_senders_clock_that_was_set_is_followed_at_once() -> None:
    clock = SenderClock()
    assert clock.arrival_ns(T0, T0 + HOUR) == T0 + HOUR
    assert clock.arrival_ns(T0 + JUMP_NS + 1, T0 + HOUR) == T0 + HOUR
    assert clock.arrival_ns(T0 - HOUR, T0 + HOUR + 5) == T0 + HOUR + 5


@pytest.mark.parametrize("early_ms", [-400, -90, 130, 400])
def test_streams_that_began_apart_are_brought_together_by_the_senders_clock(early_ms: int) -> None:
    sender, lines = SenderClock(), (Timeline(), Timeline())
    apart = []
    for n in range(3000):
        camera_ns = T0 + n * 40 * NS_PER_MS
        times = []
        for line, late_ms in zip(lines, (0, early_ms), strict=True):
            # The first seconds have no sender report yet: arrival, which is off, is all there is.
            arrival_ns = camera_ns + (500 + late_ms) * NS_PER_MS
            known = n >= 100
            at_ns = sender.arrival_ns(camera_ns, camera_ns + 500 * NS_PER_MS) if known else arrival_ns
            times.append(line.stamp(n * 40 * NS_PER_MS, at_ns, key=n % 25 == 0, exact=known))
        apart.append(times[1] - times[0])
    assert abs(apart[50]) == abs(early_ms) * NS_PER_MS
    settled = 100 + (2 * DELAY_WINDOW_NS + 10 * abs(early_ms) * NS_PER_MS) // (40 * NS_PER_MS)
    assert max(map(abs, apart[settled:])) <= EXACT_DRIFT_NS


def test_brightness_of_samples() -> None:
    meter, dark = LumaMeter(), np.full((360, 640), 16, np.uint8)
    stripes = dark.copy()
    stripes[:: 2 * STEP] = 116
    for picture in (dark, stripes, stripes, dark[:180]):
        meter.measure(picture)
    assert meter.take() == SampleLuma(
        mean=(16.0, 66.0, 66.0, 16.0), variance=(0.0, 2500.0, 2500.0, 0.0), difference=(None, 50.0, 0.0, None)
    )
    # A clip goes on where the one before ended.
    meter.measure(stripes[:180])
    found = meter.take()
    assert found is not None
    assert found.difference[0] is not None
    assert found.difference[0] > 40
    meter.measure(dark)
    meter.skip()
    assert meter.take() is None


def test_brightness_must_be_that_of_the_samples() -> None:
    luma = SampleLuma(mean=(1.0, 2.0, 3.0), variance=(0.0, 0.0, 0.0), difference=(None, 1.0, 1.0))
    assert luma.at([0, 2]) == SampleLuma(mean=(1.0, 3.0), variance=(0.0, 0.0), difference=(None, 1.0))
    task = ClipTask(
        node_id="n1",
        camera_id="a",
        epoch=1,
        epoch_started_ns=T0,
        clip_seq=0,
        start_ns=T0,
        duration_ns=5,
        sample_ns=(T0, T0 + 1, T0 + 2),
        sample_width=2,
        sample_height=2,
        luma=luma,
        closed_ns=T0,
    )
    assert decode_clip_task(encode_clip_task(task)) == task
    uneven = luma.model_copy(update={"mean": (1.0,)})
    for wrong in (luma.at([0]), uneven):
        with pytest.raises(DecodeError, match="luma"):
            decode_clip_task(encode_clip_task(task.model_copy(update={"luma": wrong})))


def _sent(camera_us: int | None) -> av.Packet[av.VideoStream]:
    """A packet as FFmpeg hands it out when the camera's sender reports are known, or, with None, not yet."""
    packet = cast("av.Packet[av.VideoStream]", av.Packet(b"\x00"))
    if camera_us is not None:
        told = PacketSideData(packet_sidedata_type_from_literal("prft"), 16)
        told.update(struct.pack("=qq", camera_us, 0))
        packet.set_sidedata(told)
    return packet


def test_most_camera_times_follow_from_one_that_was_read() -> None:
    times = CameraTimes()
    assert times.of(_sent(None), 0) is None
    for n in range(1, 40):
        stamp_ns, camera_us = n * 40_000_000, 5_000_000_000 + n * 40_000
        assert times.of(_sent(camera_us), stamp_ns) == camera_us * 1000


def test_a_camera_time_is_read_anew_after_some_packets_and_where_stamps_jump() -> None:
    times = CameraTimes()
    assert times.of(_sent(1_000_000), 0) == 1_000_000_000
    # The camera's clock was set between two reads: noticed within a few packets.
    seen = [times.of(_sent(9_000_000 + n), n * 1000) for n in range(1, READ_EVERY + 1)]
    assert seen[0] == 1_000_001_000
    assert seen[-1] == (9_000_000 + READ_EVERY) * 1000
    assert times.of(_sent(7_000_000), READ_EVERY * 1000 + STEADY_NS + 1) == 7_000_000_000
