"""Owners, statuses and broadcasts survive the way through Redis, and any bytes there are a message or a DecodeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nodeagent.contract.codec import decode_broadcast, decode_task_status, encode_broadcast, encode_task_status
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ownership import Broadcast, Owner, Resources, TaskPhase, TaskStatus, Told

ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
lives = st.from_regex(r"\A[0-9a-f]{16}\Z")
owners = st.builds(Owner, node_id=ids, incarnation=lives, epoch=st.integers(1, 2**63 - 1))
numbers = st.integers(0, 2**63 - 1)
statuses = st.builds(
    TaskStatus, phase=st.sampled_from(TaskPhase), owner=st.none() | owners, since_ms=st.integers(0, 2**53)
)
broadcasts = st.builds(
    Broadcast,
    told=st.sampled_from(Told),
    camera_id=ids,
    node_id=st.just("") | ids,
    epoch=numbers,
    version=numbers,
)
BOTH: list[tuple[Callable[[Any], bytes], Callable[[bytes], Any], st.SearchStrategy[Any]]] = [
    (encode_broadcast, decode_broadcast, broadcasts),
    (encode_task_status, decode_task_status, statuses),
]


@given(owners)
def test_an_owner_is_read_from_its_text(owner: Owner) -> None:
    assert Owner.parse(str(owner)) == owner


@given(st.text(max_size=120) | owners.map(lambda owner: f"{owner}0" * 2))
def test_any_other_text_is_no_owner(text: str) -> None:
    try:
        owner = Owner.parse(text)
    except DecodeError:
        return
    assert str(owner) == text


@pytest.mark.parametrize(("encode", "decode", "sound"), BOTH, ids=["broadcast", "status"])
@given(data=st.data())
def test_round_trip_and_damage(
    encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], sound: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    message = data.draw(sound)
    body = encode(message)
    assert decode(body) == message
    damaged = bytearray(body)
    damaged[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for other in (bytes(damaged), body[: data.draw(st.integers(0, len(body) - 1))], data.draw(st.binary(max_size=80))):
        try:
            decode(other)
        except DecodeError as error:
            assert error.why


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -1.0])
def test_a_resource_is_a_number_that_can_be_summed(number: float) -> None:
    with pytest.raises(ValidationError, match="ring_bytes"):
        Resources(ring_bytes=number)
