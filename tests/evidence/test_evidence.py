"""Evidence can not be changed, left out or believed too easily."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import DamagedError
from safetake.evidence import Check, Draft, Step, load_all, parse, save, verify_chain
from safetake.evidence.document import finished
from safetake.repository import Repository
from safetake.storage import LocalStorage
from tests.support.repositories import PASSWORD


def draft(name: str = "total-loss", **more: Any) -> Draft:
    values: dict[str, Any] = {
        "kind": "drill",
        "name": name,
        "started_ns": 1,
        "ended_ns": 2,
        "host": "host",
        "user": "user",
        "repository": "r",
        "versions": {"safetake": "1"},
        "checks": [Check(name="rows", ok=True, expected=3, found=3)],
    }
    return Draft(**values | more)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.text(st.characters(codec=None), max_size=50),
    json_values,
    json_values,
    st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3),
)
def test_given_any_findings_the_document_comes_back(
    name: str, expected: Any, found: Any, previous: list[str]
) -> None:
    checks = [Check(name=name, ok=expected == found, expected=expected, found=found)]
    document = finished(draft(name, checks=checks), previous)
    again = parse(document.canonical(), document.id)
    assert again == document
    assert again.id == document.id


@given(st.binary(max_size=300) | st.text().map(str.encode))
def test_given_any_bytes_parse_says_what_is_wrong(data: bytes) -> None:
    with pytest.raises(DamagedError):
        parse(data)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "passed"),
        ({"checks": []}, "failed"),
        ({"checks": [Check(name="rows", ok=False)]}, "failed"),
        ({"problems": ["x"]}, "failed"),
        ({"steps": [Step(name="s", started_ns=0, seconds=1, ok=False)]}, "failed"),
        ({"targets": {"rto_seconds": 5.0}, "measured": {"rto_seconds": 5.0}}, "passed"),
        ({"targets": {"rto_seconds": 5.0}, "measured": {"rto_seconds": 5.1}}, "failed"),
        ({"targets": {"rto_seconds": 5.0}}, "failed"),
    ],
)
def test_the_verdict_is_worked_out(change: dict[str, Any], verdict: str) -> None:
    document = finished(draft(**change), [])
    assert document.verdict == verdict
    content = json.loads(document.canonical())
    content["verdict"] = "passed" if verdict == "failed" else "failed"
    with pytest.raises(DamagedError, match="verdict"):
        parse(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def test_what_was_changed_or_left_out_is_named(tmp_path: Path) -> None:
    with Repository.init(LocalStorage(tmp_path), PASSWORD) as repository:
        first, second, third = (save(repository, draft(f"drill {i}")) for i in range(3))
        assert second.previous == [first.id]
        assert third.previous == [second.id]
        assert {one.id for one in load_all(repository)} == {first.id, second.id, third.id}
        assert verify_chain(repository, [third.id]) == []
        names = {
            json.loads(str(repository.load_document("evidence", name)["evidence"]))["name"]: name
            for name, _ in repository.storage.list("evidence")
        }
        # edited by somebody who has the key: the hash that the next one names is another
        stored = repository.load_document("evidence", names["drill 1"])
        edited = stored["evidence"].replace('"found":3', '"found":4')
        repository.storage.remove("evidence", names["drill 1"])
        assert verify_chain(repository) == [
            f"evidence {second.id[:8]} is missing: {third.id[:8]} follows it"
        ]
        repository.save_document("evidence", {"evidence": edited})
        assert any(second.id[:8] in problem for problem in verify_chain(repository))
        # the end cut off: seen by whoever has written the id down
        repository.storage.remove("evidence", names["drill 2"])
        assert any(third.id[:8] in problem for problem in verify_chain(repository, [third.id]))


def test_a_damaged_document_is_named_and_keeps_nobody_from_adding(tmp_path: Path) -> None:
    with Repository.init(LocalStorage(tmp_path), PASSWORD) as repository:
        save(repository, draft())
        ((name, _),) = repository.storage.list("evidence")
        path = LocalStorage(tmp_path).path("evidence", name)
        path.chmod(0o600)
        content = bytearray(path.read_bytes())
        content[40] ^= 1
        path.write_bytes(content)
        save(repository, draft("after"))
        (problem,) = verify_chain(repository)
        assert name[:8] in problem
        assert [one.name for one in load_all(repository)] == ["after"]
