"""Lists on disk, read from both ends; what is not such a list is refused, never read as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetake import lines
from safetake.errors import RestoreError

VALUES = st.lists(
    st.one_of(
        st.none(),
        st.integers(),
        st.text(st.characters(categories=["Cs", "Cc", "L", "Zs"])),
        st.lists(st.text(max_size=3), max_size=3),
    ),
    max_size=40,
)


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(values=VALUES, block=st.integers(1, 80))
def test_given_any_values_then_both_ways_give_them_back(
    values: list[Any], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list"
    lines.write(path, "things", values)
    assert list(lines.read(path, "things")) == values
    with monkeypatch.context() as patched:
        patched.setattr(lines, "_BLOCK", block)
        found = list(lines.read_backwards(path, "things"))
    assert found == list(reversed(list(enumerate(values))))


def test_given_a_failure_while_it_is_written_then_the_list_before_is_still_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "list"
    lines.write(path, "things", ["before"])

    def values() -> Any:
        yield "after"
        raise KeyError

    with pytest.raises(KeyError):
        lines.write(path, "things", values())
    assert list(lines.read(path, "things")) == ["before"]


@pytest.mark.parametrize("old", [[], [{"live": "/a", "new": None, "seen": None}], {"folders": {}}])
@pytest.mark.parametrize("read", [lines.read, lines.read_backwards])
def test_given_what_another_version_wrote_then_it_is_refused(
    tmp_path: Path, old: Any, read: Any
) -> None:
    path = tmp_path / "moves.json"
    path.write_text(json.dumps(old))
    with pytest.raises(RestoreError, match=r"moves.json is not a list of moves") as error:
        list(read(path, "moves"))
    assert "version that began it" in error.value.hint


@pytest.mark.parametrize("read", [lines.read, lines.read_backwards])
def test_given_a_list_that_is_cut_short_then_nothing_of_it_is_read(
    tmp_path: Path, read: Any
) -> None:
    path = tmp_path / "moves.json"
    lines.write(path, "moves", [["a", 1], {"end": "of a value"}, ["b", 2]])
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    for length in range(head, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RestoreError, match="is cut short"):
            next(read(path, "moves"))
    with pytest.raises(FileNotFoundError):
        next(read(tmp_path / "none", "moves"))


@pytest.mark.parametrize("read", [lines.read, lines.read_backwards])
def test_given_a_value_that_is_damaged_then_it_is_told(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "moves.json"
    lines.write(path, "moves", ["one", "two"])
    path.write_bytes(path.read_bytes().replace(b'"two"', b'"two\x00'))
    with pytest.raises(RestoreError, match="is damaged"):
        list(read(path, "moves"))
