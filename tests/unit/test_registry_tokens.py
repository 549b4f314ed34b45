"""Tokens of the registry: their form, what is kept of them, and who may do what."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.contract.errors import DecodeError
from registry.tokens import (
    ID_BYTES,
    NODE_DEEDS,
    ROLE_DEEDS,
    SECRET_BYTES,
    Bearer,
    Deed,
    Role,
    parse_token,
    token_of,
)

RANDOM = bytes(range(ID_BYTES + SECRET_BYTES))


def test_a_token_is_as_long_as_it_says_and_all_of_it_is_hashed() -> None:
    token = token_of(RANDOM)
    assert token.text == f"nreg_{RANDOM[:8].hex()}_{RANDOM[8:].hex()}"
    assert len(RANDOM[8:]) * 8 == 256
    assert token.sha256 == hashlib.sha256(token.text.encode()).hexdigest()
    with pytest.raises(ValueError, match="40 random bytes"):
        token_of(RANDOM[1:])


@given(st.binary(min_size=40, max_size=40), st.integers(0, 39))
def test_only_the_token_itself_matches(random: bytes, changed: int) -> None:
    token = token_of(random)
    assert parse_token(token.text) == token
    assert token.matches(token.sha256)
    other = bytearray(random)
    other[changed] ^= 1
    assert not token_of(bytes(other)).matches(token.sha256)
    assert not token.matches("")
    assert not token.matches("ü")


@given(st.text())
def test_what_is_no_token_is_refused_and_not_told(text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_token(text)
    assert str(caught.value) == "not a token of a registry" and caught.value.body == b""


@pytest.mark.parametrize(
    "spoil", [str.upper, lambda t: t + "\n", lambda t: " " + t, lambda t: t[:-1], lambda t: t.replace("nreg", "oreg")]
)
def test_a_token_with_a_slip_is_refused_and_not_told(spoil: object) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_token(spoil(token_of(RANDOM).text))  # type: ignore[operator]
    assert RANDOM[8:].hex() not in repr(caught.value)


def test_no_secret_is_printed() -> None:
    assert RANDOM[8:].hex() not in repr(token_of(RANDOM))


def test_who_may_do_what() -> None:
    viewer, operator, admin = (ROLE_DEEDS[role] for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN))
    assert viewer == {Deed.READ}
    assert viewer < operator < admin
    # Deeds that cannot be taken back, that leave cameras without a node, or that open the registry to others.
    assert admin - operator == {
        Deed.DELETE_CAMERA, Deed.IMPORT, Deed.FORCE_DRAIN, Deed.FORGET_NODE, Deed.TOKENS,
    }  # fmt: skip
    # Nobody may do everything: credentials are for the node that captures, and only a node reports itself.
    assert set(Deed) - admin == NODE_DEEDS == {Deed.REPORT, Deed.FETCH}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("deed", list(Deed))
def test_a_person_may_what_the_role_says_whatever_node_is_named(role: Role, deed: Deed) -> None:
    bearer = Bearer(token_id="0", name="anna", role=role)
    assert bearer.may(deed) is bearer.may(deed, "node-1") is (deed in ROLE_DEEDS[role])


@pytest.mark.parametrize("deed", list(Deed))
def test_a_node_may_speak_for_itself_only(deed: Deed) -> None:
    bearer = Bearer(token_id="0", name="rack", node_id="node-1")
    assert bearer.may(deed, "node-1") is (deed in NODE_DEEDS)
    assert not bearer.may(deed, "node-2")
    assert not bearer.may(deed)
    assert not Bearer(token_id="0", name="nobody").may(deed)
