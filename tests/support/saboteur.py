"""What spoils a drill from inside: a `sitecustomize` that its commands load.

It acts when the last command of a recovery ends (or begins), as a wrong tool would: after that the
drill only compares.
"""

from __future__ import annotations

from pathlib import Path

_CODE = """
import atexit, os, sqlite3, sys, tomllib
from pathlib import Path

words = sys.argv
last = "--collection" in words or (  # of Chroma's server; or everything at once
    "--in-place" in words and not {"--online", "--keys", "--path"} & set(words)
)

def place():
    return Path(words[words.index("--config") + 1])

def data():
    return place().parent / "data"

def redis(*call):
    from safetake.sources.redis.wire import Address, Connection

    url = tomllib.loads(place().read_text())["sources"]["queue"]["url"]
    port = int(url.rpartition(":")[2])
    with Connection(Address("127.0.0.1", port, "", False, None, None)) as connection:
        return connection.call(*call)

def spoil():
"""


def write(folder: Path, body: str, *, before: bool = False) -> Path:
    """Make `folder` for PYTHONPATH. `body` is Python, run when the last command of the recovery
    ends, or when each command of a recovery begins."""
    folder.mkdir()
    lines = "\n".join("    " + line for line in body.splitlines())
    when = (
        'if "rows" in words or last:\n    spoil()\n'
        if before
        else "if last:\n    atexit.register(spoil)\n"
    )
    (folder / "sitecustomize.py").write_text(_CODE + lines + "\n" + when)
    return folder
