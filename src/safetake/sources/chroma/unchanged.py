"""A staged Chroma folder questioned in a process of its own, without changing a byte of it.

`python -m safetake.sources.chroma.unchanged FOLDER` takes the manifest's entry on its standard
input and prints the checks as JSON. A process of its own, because a damaged pickle may ask for any
amount of memory, and the limit against that holds for a whole process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetake.model import Check

_LEAST_SECONDS = 900.0
_BYTES_PER_SECOND = 10 << 20
"""Hashing runs at 500 MB/s and more; this is a disk that hardly works."""


def check_unchanged(staged: Path, entry: Mapping[str, Any]) -> list[Check]:
    """Question `staged` against its manifest entry; a crash or a hang is a failed check."""
    seconds = _LEAST_SECONDS + int(entry.get("bytes") or 0) / _BYTES_PER_SECOND
    try:
        done = subprocess.run(
            [sys.executable, "-m", "safetake.sources.chroma.unchanged", staged],
            input=json.dumps({"facts": entry["facts"]}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [Check("questions", False, "answers", f"none in {seconds:.0f} s")]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1][:300]
        return [Check("questions", False, "answers", f"exit {done.returncode}", last)]
    return [Check(**each) for each in json.loads(done.stdout)]


def main(folder: str) -> None:
    """Print the checks."""
    from safetake.sources.chroma.proof import questions_that_change_nothing

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    checks = questions_that_change_nothing(Path(folder), json.load(sys.stdin))
    print(json.dumps([asdict(check) for check in checks], default=str))


if __name__ == "__main__":
    main(sys.argv[1])
