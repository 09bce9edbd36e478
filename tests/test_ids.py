"""Ids as text, and patterns around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.ids import Template, as_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        ("7", "7"),
        (7.5, "7.5"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        (True, "true"),
        (b"\x00\xffA", "00ff41"),
        (" 7", " 7"),
        ("007", "007"),
        ("", ""),
        (None, None),
        (2**63 - 1, "9223372036854775807"),
    ],
)
def test_a_value_as_an_id(value: object, text: str | None) -> None:
    assert as_text(value) == text


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_is_one_id_whatever_its_type(number: int) -> None:
    assert as_text(number) == as_text(float(number)) == as_text(str(number))


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_different_numbers_are_different_ids(one: float, other: float) -> None:
    assert (as_text(one) == as_text(other)) == (one == other)


@given(st.text("ab:/*{}"), st.text("ab:/*{}"), st.booleans())
def test_a_pattern_is_split_where_the_id_stands(before: str, after: str, wide: bool) -> None:
    pattern = before + ("{id*}" if wide else "{id}") + after
    assert Template.parse(pattern) == (before, after, wide)


@pytest.mark.parametrize("pattern", ["", "a", "{id", "{id}{id}", "{id}/{id*}", "{ID}", "{id**}"])
def test_a_pattern_without_one_id_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="once"):
        Template.parse(pattern)
