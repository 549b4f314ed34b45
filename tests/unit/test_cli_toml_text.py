"""What is written as TOML reads back the same."""

from __future__ import annotations

from typing import Any

import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.cli.toml_text import toml_text

_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_scalar = _text | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()
_value = st.recursive(_scalar, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
_table = st.recursive(
    st.dictionaries(_text, _value, max_size=4),
    lambda inner: st.dictionaries(_text, _value | inner | st.lists(inner, min_size=1, max_size=3), max_size=4),
    max_leaves=6,
)


@settings(deadline=None)
@given(_table)
def test_round_trip(doc: dict[str, Any]) -> None:
    assert tomli.loads(toml_text(doc)) == doc


def test_none_becomes_a_comment() -> None:
    assert toml_text({"bus": None, "a": {"b": None}}) == "# bus: not given\n\n[a]\n# b: not given\n"
