"""The ids of a stored pickle, taken out in a process of its own.

`python -m safetake.sources.chroma.labels` reads a pickle from its standard input and prints its
ids and labels as JSON: the limit on memory that a pickle needs holds for a whole process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

from safetake.errors import DamagedError
from safetake.sources.chroma.pickles import BadPickleError, parse_ids

_SECONDS = 300.0


def labels_of(data: bytes, name: str) -> dict[str, int]:
    """Each id's label. `name` is the file's, for the message. Raises DamagedError."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "safetake.sources.chroma.labels"],
            input=data,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        said = json.loads(done.stdout) if done.returncode == 0 else done.stderr.decode()[-200:]
    except (subprocess.TimeoutExpired, ValueError) as error:
        said = str(error)
    if not isinstance(said, dict):
        raise DamagedError(
            f"{name} in the snapshot cannot be read: {said}",
            hint="run `safetake verify` on the snapshot, and take an older one",
        )
    return said


def main() -> int:
    """Print the ids, or why there are none on standard error."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found = parse_ids(sys.stdin.buffer.read())
    except BadPickleError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(found.label_of, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
