"""Every reader of YAML gives back what was written: PyYAML here, Go's in tests/deploy."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.yamltext import one, to_yaml

# YAML 1.1 knows no surrogates and no other control characters, and Kubernetes wants no NUL
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
LINES = st.lists(
    st.sampled_from(["", " ", "a", "- b", "# c", "key: 'v'", " indented", "---", "\ttab", "장면"]),
    max_size=6,
).map("\n".join)
WORDS = st.sampled_from(
    ["y", "N", "on", "Null", "~", "1e3", "0o7", "0x1F", "1_000", "2026-01-01", "12:30:45", ".inf"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | LINES | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(TEXT | WORDS, VALUES, max_size=4), min_size=1, max_size=3))
def test_what_is_written_is_read(documents: list[dict[str, Any]]) -> None:
    assert list(yaml.safe_load_all(to_yaml(documents))) == documents


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("word", "word"),
        ("y", '"y"'),
        ("1e3", '"1e3"'),
        ("0 */6 * * *", '"0 */6 * * *"'),
        (True, "true"),
        (None, "null"),
        (7, "7"),
        ([], "[]"),
        ({}, "{}"),
        ("a\nb\n", "|\n  a\n  b"),
        ("a\nb", "|-\n  a\n  b"),
        ("a\n\nb\n\n", "|+\n  a\n\n  b\n"),
        (" a\nb", '" a\\nb"'),
    ],
)
def test_how_it_looks(value: Any, text: str) -> None:
    assert one({"key": value}) == f"key: {text}\n"
