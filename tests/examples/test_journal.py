"""The journal: what was requested is never forgotten, what was acknowledged hardly ever."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from script_generator.errors import BadRequestError
from script_generator.journal import Journal, Kind, read_journal

DATA = st.dictionaries(st.text(max_size=9), st.text(max_size=20) | st.integers(), max_size=4)
STEPS = st.lists(
    st.tuples(st.sampled_from(get_args(Kind)), st.text(max_size=20), DATA, st.booleans())
)


@given(STEPS, st.integers(min_value=0))
def test_journal_given_a_torn_end_keeps_every_complete_line(
    steps: list[tuple[Kind, str, dict[str, str | int], bool]], cut: int
) -> None:
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "journal"
        journal = Journal(path)
        for kind, item_id, data, acknowledged in steps:
            request = journal.request(kind, item_id, data)
            if acknowledged:
                journal.acknowledge(request, {"by": "service"})
        journal.close()
        whole = read_journal(path)
        assert [(r.kind, r.id) for r in whole] == [(kind, name) for kind, name, _, _ in steps]
        for record, (_, _, data, acknowledged) in zip(whole, steps, strict=True):
            assert record.data == (data | {"by": "service"} if acknowledged else data)
            if record.acknowledged_ns is not None:
                assert record.requested_ns <= record.acknowledged_ns
            assert (record.acknowledged_ns is not None) == acknowledged

        content = path.read_bytes()
        path.write_bytes(content[: cut % (len(content) + 1)])
        kept = read_journal(path)
        assert [r.seq for r in kept] == [r.seq for r in whole[: len(kept)]]

        continued = Journal(path)
        seq = continued.request("project", "after the crash", {})
        continued.close()
        assert seq == path.read_bytes().count(b"\n")
        assert [r.seq for r in read_journal(path)] == [*(r.seq for r in kept), seq]


def test_journal_given_several_threads_numbers_without_a_gap(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")

    def write(worker: int) -> None:
        for number in range(200):
            journal.acknowledge(journal.request("script", f"{worker}-{number}", {}), {})

    threads = [Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, 1601))
    times = [line["time_ns"] for line in lines]
    assert times == sorted(times)
    assert len(read_journal(tmp_path / "journal")) == 800


@pytest.mark.parametrize("damage", ["garbage", "gap", "backwards"])
def test_journal_given_damage_in_the_middle_refuses(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    for number in range(3):
        journal.request("project", str(number), {})
    journal.close()
    lines = path.read_text().splitlines()
    if damage == "gap":
        del lines[1]
    elif damage == "garbage":
        lines[1] = "{"
    else:
        lines[1] = json.dumps(json.loads(lines[1]) | {"time_ns": 1})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadRequestError, match="line 2"):
        read_journal(path)
