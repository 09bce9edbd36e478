"""Two folders compared: names of one file against a model, and memory that does not grow."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.scratch import scratch_database
from safetake.sources.files.compare import Changes, Comparison, Selection
from safetake.sources.files.exclude import Exclusions


@contextmanager
def compared(live: Path, staged: Path) -> Iterator[Changes]:
    with scratch_database() as database:
        changes = Changes(database)
        everything = Selection([]), Exclusions([])
        Comparison(str(live), str(staged), changes, everything[1], everything[0]).run()
        yield changes


NAMES = ["a", "b", "c", "x/a", "x/b", "x/y/c"]
FILES = st.lists(st.integers(0, 4), min_size=len(NAMES), max_size=len(NAMES))
"""For each name which file it is; files of one content are told apart by nothing else."""
CONTENTS = st.lists(st.sampled_from(["one", "two"]), min_size=5, max_size=5)


def grow(root: Path, files: list[int], contents: list[str]) -> None:
    first: dict[int, Path] = {}
    for name, number in zip(NAMES, files, strict=True):
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if number in first:
            os.link(first[number], place)
            continue
        first[number] = place
        place.write_text(contents[number])
        os.utime(place, (10**9, 10**9))
    for folder in (root / "x" / "y", root / "x", root):
        os.utime(folder, (10**9, 10**9))


def expected(old: list[int], new: list[int], before: list[str], after: list[str]) -> set[str]:
    """Entries that differ; then, until there are no more, those of files whose names differ, or of
    which another name comes anew."""
    at = range(len(NAMES))
    changed = {i for i in at if before[old[i]] != after[new[i]]}
    while True:
        renewed = {new[i] for i in changed}
        equal = [i for i in at if i not in changed]
        more = {
            i
            for i in equal
            if new[i] in renewed
            or {j for j in equal if old[j] == old[i]} != {j for j in equal if new[j] == new[i]}
        }
        if not more:
            return {NAMES[i] for i in changed}
        changed |= more


@settings(max_examples=150, deadline=None)
@given(old=FILES, new=FILES, before=CONTENTS, after=CONTENTS)
def test_names_that_are_one_file_in_one_folder_only_are_changed_with_all_of_its_names(
    old: list[int], new: list[int], before: list[str], after: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as base:
        live, staged = Path(base) / "live", Path(base) / "staged"
        grow(live, old, before)
        grow(staged, new, after)
        with compared(live, staged) as changes:
            found = [change.path for change in changes]
            folders = [path for path, *_ in changes.folders()]
    assert len(found) == len(set(found))
    assert set(found) == expected(old, new, before, after)
    assert set(folders) == {path.rpartition("/")[0] for path in found}
    assert folders == [path for path in ("x/y", "x", "") if path in folders]


def test_memory_is_for_one_folder_not_for_all(tmp_path: Path) -> None:
    for root, text in (("live", "old"), ("staged", "new")):
        for folder in range(40):
            (tmp_path / root / str(folder)).mkdir(parents=True)
            for file in range(50):
                (tmp_path / root / str(folder) / str(file)).write_text(text)
    tracemalloc.start()
    try:
        with compared(tmp_path / "live", tmp_path / "staged") as changes:
            count = sum(1 for _ in changes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2000
    assert peak < 1_500_000  # two buffers of 1 MiB are read at a time; 2,000 stats were 2.5 MB more
