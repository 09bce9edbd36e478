"""What a snapshot holds, brought back by another tool than the one that is judged.

Where the recovery starts from another snapshot than the one that the copies were made of, nobody
has seen its content yet. Stock restic brings it back where it is installed (0.14 or newer), else
`safetake restore --to`, which is at least another way than the one in place.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from safetake.errors import SafetakeError

_OLDEST = (0, 14)


def by_restic(location: str, password_file: Path, snapshot: str, target: Path) -> str:
    """Bring it back into `target`; the tool in words, or empty when restic is not here.

    Raises SafetakeError with what restic said.
    """
    version = _version()
    if version is None:
        return ""
    place = ["-r", location, "--password-file", str(password_file), "--no-lock", "--no-cache"]
    _run(["restic", *place, "restore", snapshot, "--target", str(target)], snapshot)
    _run([sys.executable, str(target / ".safetake" / "join.py"), str(target)], snapshot)
    return "restic " + ".".join(map(str, version))


def _version() -> tuple[int, ...] | None:
    if shutil.which("restic") is None:
        return None
    said = subprocess.run(["restic", "version"], capture_output=True, text=True, check=False)
    numbers = re.match(r"restic (\d+)\.(\d+)\.(\d+)", said.stdout)
    found = tuple(map(int, numbers.groups())) if numbers else (0,)
    return found if found >= _OLDEST else None


def _run(words: list[str], snapshot: str) -> None:
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-3:]
        raise SafetakeError(
            f"snapshot {snapshot[:8]} does not come back: {Path(words[0]).name} ended with "
            f"{done.returncode}: {' '.join(said)[:500]}"
        )
