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
from safetake.evidence.remembered import FEW
from safetake.evidence.store import copy_all, find, heads
from safetake.repository import Repository
from safetake.repository.cache import IndexCache
from safetake.storage import Kind, LocalStorage
from tests.support.repositories import new_repository, open_repository


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
        ({"steps": [Step(name="s", started_ns=0, seconds=2, target_seconds=1)]}, "failed"),
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
    with new_repository(tmp_path) as repository:
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
        gone = f"evidence {second.id[:8]} is missing: {third.id[:8]} follows it"
        assert verify_chain(repository, [first.id, third.id]) == [gone]
        told, before = verify_chain(repository)  # nobody wrote down where the gap begins
        assert told == gone
        assert before.startswith(f"evidence/{names['drill 0']} is not in the chain")
        forged = repository.save_document("evidence", {"evidence": edited})
        for known in ([], [first.id, second.id, third.id]):
            told, stranger = verify_chain(repository, known)
            assert told == gone
            assert stranger.startswith(
                f"evidence/{forged} is not in the chain: no document follows"
            )
            assert "(drill drill 1, 1970-01-01T00:00:00Z)" in stranger
            assert f"{second.id[:8]} was changed into it" in stranger
        # the end cut off: seen by whoever has written the id down
        repository.storage.remove("evidence", names["drill 2"])
        known = [first.id, second.id, third.id]
        told, last, stranger = verify_chain(repository, known)
        assert sorted([told, last]) == sorted(
            f"evidence {one.id[:8]} is missing: the history names it" for one in (second, third)
        )
        assert forged in stranger


@pytest.mark.parametrize("how", ["another key", "a bit", "no evidence", "not canonical"])
def test_the_file_that_holds_no_evidence_any_more_is_named(tmp_path: Path, how: str) -> None:
    with new_repository(tmp_path / "one") as repository:
        first, second = (save(repository, draft(f"drill {i}")) for i in range(2))
        (name,) = [
            name
            for name, document in repository.documents("evidence")
            if '"drill 0"' in document["evidence"]
        ]
        path = LocalStorage(tmp_path / "one").path("evidence", name)
        if how == "a bit":
            path.chmod(0o600)
            content = bytearray(path.read_bytes())
            content[40] ^= 1
            path.write_bytes(content)
        else:
            repository.storage.remove("evidence", name)
            if how == "another key":
                with new_repository(tmp_path / "two") as other:
                    save(other, draft("drill 0"))
                    ((name, _),) = other.storage.list("evidence")
                    repository.storage.put("evidence", name, other.storage.get("evidence", name))
            elif how == "no evidence":
                name = repository.save_document("evidence", {"else": 1})
            else:
                spaced = first.canonical().decode().replace(":", ": ", 1)
                name = repository.save_document("evidence", {"evidence": spaced})
        damaged, missing, both = verify_chain(repository, [first.id, second.id])
        assert damaged.startswith(f"evidence/{name}")
        assert missing == f"evidence {first.id[:8]} is missing: {second.id[:8]} follows it"
        assert both == f"what cannot be read may have been {first.id[:8]}: evidence/{name}"


def test_a_copy_is_a_whole_chain_wherever_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = new_repository(tmp_path / "one")
    two = new_repository(tmp_path / "two", "another")
    own = save(two, draft("of the copy alone", ended_ns=1))
    # the clock went back between them: what they follow says the order, not the time
    kept = [save(one, draft(f"drill {i}", ended_ns=9 - i)) for i in range(4)]
    put, calls = two.storage.put, 0

    def failing(kind: Kind, name: str, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        put(kind, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(two.storage, "put", failing)
        with pytest.raises(KeyboardInterrupt):
            copy_all(one, two)
    assert {each.id for each in load_all(two)} == {own.id, kept[0].id, kept[1].id}
    assert verify_chain(two) == []
    assert copy_all(one, two) == (2, [])
    assert copy_all(one, two) == (0, [])
    written = {each.id: each.canonical() for each in load_all(two)}
    assert written == {each.id: each.canonical() for each in (own, *kept)}
    assert verify_chain(two, [each.id for each in kept]) == []
    joined = save(two, draft("with the copy"))
    assert joined.previous == sorted([own.id, kept[3].id])
    more = save(one, draft("meanwhile"))
    assert copy_all(one, two) == (1, [])
    assert copy_all(two, one) == (2, [])  # and back
    assert save(one, draft("last")).previous == sorted([joined.id, more.id])
    assert verify_chain(one) == verify_chain(two) == []


def test_what_cannot_be_read_stays_behind_and_is_named(tmp_path: Path) -> None:
    one = new_repository(tmp_path / "one")
    two = new_repository(tmp_path / "two", "another")
    first, second = (save(one, draft(f"drill {i}")) for i in range(2))
    (name,) = [n for n, d in one.documents("evidence") if '"drill 0"' in d["evidence"]]
    sealed = one.storage.get("evidence", name)
    one.storage.remove("evidence", name)
    wrong = one.save_document("evidence", {"evidence": "{}"})
    count, problems = copy_all(one, two)
    assert count == 1
    (problem,) = problems
    assert problem.startswith(f"evidence/{wrong}")
    assert verify_chain(two) == [f"evidence {first.id[:8]} is missing: {second.id[:8]} follows it"]
    one.storage.remove("evidence", wrong)
    one.storage.put("evidence", name, sealed)
    assert copy_all(one, two) == (1, [])
    assert verify_chain(two, [first.id, second.id]) == []


def test_a_damaged_document_is_named_and_keeps_nobody_from_adding(tmp_path: Path) -> None:
    with new_repository(tmp_path) as repository:
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


def counted(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that are read from now on."""
    read: list[str] = []
    get = repository.storage.get

    def counting(kind: Kind, name: str) -> bytes:
        if kind == "evidence":
            read.append(name)
        return get(kind, name)

    monkeypatch.setattr(repository.storage, "get", counting)
    return read


def test_one_more_document_does_not_read_all_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain is a line all the same, and checking it reads every document."""
    one, two = new_repository(tmp_path / "one"), new_repository(tmp_path / "two", "another")
    for repository in (one, two):
        repository.cache = IndexCache(tmp_path / "caches", repository.id, repository.key)
    read = counted(one, monkeypatch)
    count, most = 4 * FEW, 0
    kept: list[str] = []
    for number in range(count):
        read.clear()
        document = save(one, draft(f"drill {number}", ended_ns=number + 1))
        assert document.previous == kept[-1:]
        kept.append(document.id)
        most = max(most, len(read))
    assert most <= FEW + 1
    read.clear()
    assert verify_chain(one, kept) == []
    assert len(read) == count
    assert find(one, "latest") == [document]

    assert copy_all(one, two) == (count, [])
    there = counted(two, monkeypatch)
    save(one, draft("more"))
    for _ in range(2):  # the first look at what was copied reads it
        there.clear()
        copied = copy_all(one, two)
        read.clear()
    assert copied == (0, [])
    assert len(there) <= FEW + 1
    # what another machine added meanwhile is followed; so is what came before what follows it
    other = new_machine(one, tmp_path / "one", tmp_path / "elsewhere")
    added = save(other, draft("of another machine"))
    assert save(one, draft("after it")).previous == [added.id]


def new_machine(repository: Repository, place: Path, caches: Path) -> Repository:
    found = open_repository(place)
    found.cache = IndexCache(caches, repository.id, repository.key)
    return found


def test_what_is_remembered_is_never_believed_more_than_the_repository(tmp_path: Path) -> None:
    """Removed files are not followed, a damaged memory is none, and two at once are one fork."""
    one = new_repository(tmp_path / "one")
    one.cache = IndexCache(tmp_path / "caches", one.id, one.key)
    for number in range(FEW + 2):
        last = save(one, draft(f"drill {number}"))
    (memory,) = tmp_path.glob("caches/*/evidence")
    assert memory.stat().st_mode & 0o777 == 0o600
    names = {
        json.loads(str(document["evidence"]))["name"]: name
        for name, document in one.documents("evidence")
    }
    one.storage.remove("evidence", names[f"drill {FEW + 1}"])
    after = save(one, draft("after"))
    assert after.previous == last.previous
    assert verify_chain(one, [last.id, after.id]) == [
        f"evidence {last.id[:8]} is missing: the history names it",
    ]
    memory.write_bytes(memory.read_bytes()[:-1])
    assert save(one, draft("again")).previous == [after.id]
    sides = [finished(draft(name), [after.id]) for name in ("left", "right")]
    for side in sides:
        one.save_document("evidence", {"evidence": side.canonical().decode()})
    ends = {*(side.id for side in sides), *heads_of(one)}
    assert save(one, draft("joins")).previous == sorted(ends)
    assert len(heads_of(one)) == 1
    assert len(load_all(one)) == FEW + 6


def heads_of(repository: Repository) -> list[str]:
    return heads(load_all(repository))
