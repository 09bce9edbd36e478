"""A machine that has nothing: the commands of the recovery kit, on an empty HOME, and nothing else.

No configuration, cache or variable of the drill is used, and what came back is put into place as
the page says: each source is a folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from safetake.drill.mirror import PAGE
from safetake.errors import SafetakeError
from safetake.kit.page import CONFIG_FILE, PASSWORD_FILE, PLAIN, RESTORED, commands


def bring_back(folder: Path, password: str, told: Callable[[str], None]) -> Path:
    """Run the page's commands that need safetake; the folder where everything is.

    `told` hears each command. Raises SafetakeError for the first that fails.
    """
    bare = folder / "machine"
    work = bare / "work"
    for inside in (bare, work, bare / "home", bare / "tmp"):
        inside.mkdir(mode=0o700)
    kept = {name: os.environ[name] for name in ("LANG", "PYTHONPATH") if name in os.environ}
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    environment = {**kept, "PATH": path, "HOME": str(bare / "home"), "TMPDIR": str(bare / "tmp")}
    _private(work / PASSWORD_FILE, password + "\n")  # as the page's first step says
    for command in commands((folder / PAGE).read_text(encoding="utf-8")):
        if command.split()[0] == "restic" or PLAIN in command:
            continue  # the page's other way, which `safetake kit --check` goes
        shown = f"(write {CONFIG_FILE})" if command.endswith(f" > {CONFIG_FILE}") else command
        told(shown)
        _private(bare / "command.sh", command + "\n")
        done = subprocess.run(
            ["sh", str(bare / "command.sh")],
            cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
            raise SafetakeError(f"the kit's `{shown}` ended with {done.returncode}: {last}")
    return work / RESTORED


def put_into_place(restored: Path, data: Path, sources: Iterable[str]) -> None:
    """Each source's folder to where the application has it. Raises SafetakeError."""
    for name in sources:
        if not (restored / name).is_dir():
            raise SafetakeError(f"{name}: the kit did not bring it back")
        shutil.rmtree(data / name, ignore_errors=True)
        (restored / name).rename(data / name)


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
