"""`safetake restore --in-place` of a folder in which every file changed: peak memory and seconds.

Two folders, the second with four times as many small files: what the larger one takes more, divided
by how many more files it has, is what each file costs. A restore keeps nothing of a file: what is
left is the repository's, its index and what a writer keeps of new blobs, of which each version of
each file is one here. So a restore should take hardly more than the backup, which is measured, too.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.command import BenchError, Run, remove, run
from bench.tools import safetake_with

FILES = 200_000
LESS = 4
_PER_FOLDER = 100


def measure(work: Path, scale: float) -> dict[str, Any]:
    """Figures of each command for both folders, and KB for each file. Removes what it made."""
    many = max(LESS * _PER_FOLDER, int(FILES * scale))
    folder = work / "files"
    seen: dict[int, dict[str, Run]] = {}
    for count in (many // LESS, many):
        remove(folder)
        folder.mkdir(parents=True)
        try:
            seen[count] = _measure(folder, count)
        finally:
            remove(folder)
    few, many = seen
    return {
        "files": [few, many],
        "peak_mb": {s: [round(r[s].peak_mb, 1) for r in seen.values()] for s in seen[few]},
        "seconds": {s: [round(r[s].seconds, 2) for r in seen.values()] for s in seen[few]},
        "kb_per_file": {
            step: round(
                (seen[many][step].peak_mb - seen[few][step].peak_mb) * 1e3 / (many - few), 3
            )
            for step in seen[few]
        },
    }


def _measure(folder: Path, count: int) -> dict[str, Run]:
    live = folder / "live"
    _write(live, count, "as it was")
    command = safetake_with(folder, f'[sources.scripts]\ntype = "files"\npath = "{live}"')
    done = {"backup": run([*command, "backup"])}
    _write(live, count, "changed since")
    restore = [*command, "restore", "latest"]
    done["--dry-run"] = run([*restore, "--in-place", "--dry-run"])
    done["--in-place"] = run([*restore, "--in-place", "--yes"])
    _expect(live, count, "as it was")
    done["--undo"] = run([*command, "restore", "--undo", "--yes"])
    _expect(live, count, "changed since")
    done["--to"] = run([*restore, "--to", folder / "to"])
    return done


def _texts(count: int, text: str) -> Iterator[tuple[str, str]]:
    """1 KB each, half of which compresses, as text does."""
    for number in range(count):
        words = hashlib.shake_128(f"{text} {number}".encode()).hexdigest(500)
        yield f"{number // _PER_FOLDER:05}/{number:07}.txt", words


def _write(live: Path, count: int, text: str) -> None:
    for name, content in _texts(count, text):
        if name.endswith("00.txt"):
            (live / name).parent.mkdir(parents=True, exist_ok=True)
        (live / name).write_text(content)


def _expect(live: Path, count: int, text: str) -> None:
    for name, content in _texts(count, text):
        found = (live / name).read_text()
        if found != content:
            raise BenchError(f"{name} is not {text}")


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), 1.0), indent=1))
