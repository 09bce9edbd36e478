"""What counts, and what counts as lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.counts import LEAST, Counts, Loss, counts_of, keys, largest, losses, rows


def of(total: int, **parts: int) -> Counts:
    return Counts("rows", total, parts)


def test_what_sqlite_keeps_for_itself_does_not_count() -> None:
    tables = {
        "episodes": 40,
        "sqlite_sequence": 1,
        "search_data": 900,
        "search_content": 40,
        "strange": None,
    }
    found = rows(tables, ["search"])
    assert found.parts == {"episodes": 40, "search_content": 40}
    assert (found.total, found.uncounted) == (80, ("strange",))


def test_keys_that_expire_are_meant_to_go() -> None:
    found = keys({"0": {"keys": 500, "expires": 480}, "3": {"keys": 9, "expires": 9}})
    assert found == Counts("keys", 20, {"database 0": 20})


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("sqlite", {}),
        ("sqlite", {"rows": {"a": "x"}}),
        ("chroma", {"collections": {"x": {}}}),
        ("redis", {"databases": None}),
        ("files", {"files": 3}),
        ("raw", {"files": 3, "bytes": 5}),
    ],
)
def test_facts_that_do_not_say_are_no_zero(kind: str, facts: dict[str, object]) -> None:
    assert counts_of(kind, facts) is None


def test_collections_are_known_by_name() -> None:
    def facts(key: str) -> dict[str, object]:
        known = {"name": "scripts", "database": "d1", "records": 5}
        return {
            "databases": [{"id": "d1", "name": "main", "tenant": "t"}],
            "collections": {key: known},
        }

    assert counts_of("chroma", facts("a")) == counts_of("chroma", facts("b"))
    assert counts_of("chroma", facts("a")) == Counts("records", 5, {"main/scripts": 5})


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (of(100, a=100), of(51, a=51), []),
        (of(100, a=100), of(50, a=50), [("a", 50), ("", 50)]),
        (of(9, a=9), of(0, a=0), []),
        (of(30, a=10, b=20), of(20, a=0, b=20), [("a", 0)]),
        (of(30, a=10, b=20), of(20, b=20), [("a", None)]),
        (of(3, a=3), of(0), [("a", None)]),
        (of(30, a=10, b=20), of(900, a=10, c=890), [("b", None)]),
        (of(10), of(10_000), []),
    ],
)
def test_losses(before: Counts, after: Counts, lost: list[tuple[str, int | None]]) -> None:
    assert [(loss.part, loss.after) for loss in losses(before, after, 0.5)] == lost


def test_what_could_not_be_counted_is_not_gone() -> None:
    assert losses(of(20, a=20), Counts("rows", 20, {}, uncounted=("a",)), 0.5) == []


def test_a_database_of_redis_without_keys_is_not_listed() -> None:
    before = Counts("keys", 25, {"database 0": 20, "database 1": 5})
    found = losses(before, Counts("keys", 0, {}), 0.5)
    assert [(loss.part, loss.after) for loss in found] == [("database 0", 0), ("", 0)]


def test_files_that_were_emptied_are_lost() -> None:
    before, after = Counts("files", 50, bytes=5000), Counts("files", 50, bytes=0)
    assert [str(loss) for loss in losses(before, after, 0.5)] == ["5,000 bytes became 0"]
    assert str(Loss("a", "rows", 1200, None)) == "a: gone, with 1,200 rows"


COUNTS = st.builds(
    lambda parts, size: Counts("rows", sum(parts.values()), parts, size),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 60)),
    st.none() | st.integers(0, 10**6),
)


@given(COUNTS)
def test_counts_come_back_from_json(counts: Counts) -> None:
    assert Counts.of(json.loads(json.dumps(counts.as_dict()))) == counts


@given(COUNTS, COUNTS, st.floats(0.01, 1))
def test_growth_is_no_loss_and_a_loss_is_told_of_the_largest(
    one: Counts, other: Counts, share: float
) -> None:
    assert losses(one, one, share) == []
    base = largest([one, other])
    assert base is not None
    assert losses(one, base, share) == losses(other, base, share) == []
    for loss in losses(base, one, share):
        assert loss.vanished or loss.before - (loss.after or 0) >= max(LEAST, share * loss.before)
