"""A record says the same for ever, and nothing else passes for one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.errors import DamagedError
from safetake.operate.history.record import MAX_BYTES, Record, from_dict, make, parse

TEXT = st.text(max_size=40)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=30,
)
IDS = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=5)
RECORDS = st.builds(
    make,
    IDS,
    kind=st.sampled_from(["backup", "prune", "restore"]),
    job=TEXT,
    started_ns=st.integers(),
    ended_ns=st.integers(),
    exit_code=st.integers(0, 255),
    host=TEXT,
    user=TEXT,
    error=TEXT,
    hint=TEXT,
    facts=st.dictionaries(TEXT, ANYTHING, max_size=6),
)


def plain(**more: Any) -> Record:
    values: dict[str, Any] = {
        "kind": "backup",
        "started_ns": 1,
        "ended_ns": 2,
        "host": "h",
        "user": "u",
        **more,
    }
    return make([], **values)


@given(RECORDS)
def test_what_is_written_is_read_again(record: Record) -> None:
    assert parse(record.canonical(), record.id) == record
    assert from_dict(json.loads(json.dumps(record.as_dict()))) == record
    assert record.canonical().isascii()
    assert hashlib.sha256(record.canonical()).hexdigest() == record.id


@settings(max_examples=100)
@given(RECORDS, st.data())
def test_no_changed_byte_passes(record: Record, data: st.DataObject) -> None:
    raw = bytearray(record.canonical())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedError):
        parse(bytes(raw), record.id)


@given(st.binary(max_size=300) | ANYTHING.map(lambda value: repr(value).encode()))
def test_nothing_else_is_a_record(data: bytes) -> None:
    with pytest.raises(DamagedError):
        parse(data)


@given(ANYTHING)
def test_no_document_else_is_a_record(value: Any) -> None:
    with pytest.raises(DamagedError):
        from_dict(value)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"format": 2},
        {"format": True},
        {"previous": ["x"]},
        {"previous": ["b" * 64, "a" * 64]},
        {"previous": ["a" * 64, "a" * 64]},
        {"previous": [f"{n:064x}" for n in range(300)]},
        {"previous": "a" * 64},
        {"kind": ""},
        {"kind": "Backup"},
        {"kind": "a\nb"},
        {"trigger": 1},
        {"job": "x" * 257},
        {"error": "x" * 4001},
        {"started_ns": -1},
        {"started_ns": True},
        {"ended_ns": 1 << 63},
        {"ended_ns": 1.0},
        {"exit_code": 256},
        {"exit_code": False},
        {"facts": []},
        {"facts": {"a": [[[[[[[[1]]]]]]]]}},
        {"facts": {"a": "x" * MAX_BYTES}},
    ],
    ids=str,
)
def test_a_record_within_its_hash_but_not_its_limits(change: dict[str, Any]) -> None:
    content = json.loads(plain().canonical()) | change
    raw = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(DamagedError):
        parse(raw, hashlib.sha256(raw).hexdigest())


@pytest.mark.parametrize(
    "raw",
    [
        lambda text: text.replace(b'"h"', b'"\\u0068"'),
        lambda text: text.replace(b'"exit_code":0', b'"exit_code":0,"exit_code":0'),
        lambda text: text.replace(b":", b": "),
        lambda text: text + b"\n",
        lambda text: text.replace(b'"facts":{}', b'"facts":{"a":NaN}'),
        lambda text: b"[" * 100_000,
        lambda text: text.replace(b'"started_ns":1', b'"started_ns":' + b"9" * 5000),
    ],
    ids=["escaped", "twice", "spaced", "longer", "nan", "deep", "long number"],
)
def test_only_the_canonical_form(raw: Any) -> None:
    with pytest.raises(DamagedError):
        parse(raw(plain().canonical()))


def test_secrets_in_urls_and_what_is_no_json_are_taken_out() -> None:
    record = plain(
        error="cannot reach redis://user:geheim@host:1/0 and https://:pw@x/",
        facts={"url": ["s3://key:secret@host"], "when": float("nan"), "what": object, "n": 1 << 80},
    )
    assert b"geheim" not in record.canonical()
    assert b":pw@" not in record.canonical()
    assert b"secret@" not in record.canonical()
    assert record.facts["when"] is None
    assert record.facts["n"] == str(1 << 80)


def test_facts_that_are_too_many_are_left_out_by_name() -> None:
    record = plain(facts={"small": 1, "large": ["x" * 1000] * 200, "larger": ["x" * 3000] * 200})
    assert len(record.canonical()) <= MAX_BYTES
    assert record.facts == {"small": 1, "left_out": ["larger", "large"]}
    assert parse(record.canonical()) == record


def test_the_form_is_fixed() -> None:
    """Other machines and other versions must come to the same id."""
    record = plain(facts={"b": 1.5, "a": "말"})
    assert record.canonical() == (
        b'{"ended_ns":2,"error":"","exit_code":0,"facts":{"a":"\\ub9d0","b":1.5},"format":1,'
        b'"hint":"","host":"h","job":"","kind":"backup","previous":[],"started_ns":1,'
        b'"trigger":"hand","user":"u"}'
    )
