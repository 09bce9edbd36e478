"""Is the kit enough? Its commands, run one by one in an empty folder with an empty HOME.

Nothing else is used: no configuration, no cache, no variable of this machine's environment. Both
ways, safetake's and restic's, must bring back the same trees.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetake import sandbox
from safetake.clock import now_ns
from safetake.evidence import Check, Draft, Evidence, Step, save
from safetake.evidence.versions import place, versions
from safetake.kit.page import CONFIG_FILE, PASSWORD_FILE, PLAIN, RESTORED, Kit, commands, markdown
from safetake.scratch import scratch_folder

if TYPE_CHECKING:
    from safetake.repository import Repository

_TIMEOUT_S = 7200


def check_kit(
    kit: Kit,
    repository: Repository,
    password: str,
    scratch: Path | None,
    told: Callable[[str], None] = lambda command: None,
) -> Evidence:
    """Run the page's commands and keep the evidence. Raises StorageError, SafetakeError."""
    started_ns = now_ns()
    checks: list[Check] = []
    steps: list[Step] = []
    with scratch_folder(scratch) as folder:
        (folder / "home").mkdir()
        work = folder / "work"
        work.mkdir()
        environment = _environment(folder)
        if kit.password is None:  # as its first step says
            (work / PASSWORD_FILE).touch(mode=0o600)
            (work / PASSWORD_FILE).write_text(password + "\n", encoding="utf-8")
        script = folder / "command.sh"
        script.touch(mode=0o600)
        there = shutil.which("restic", path=environment["PATH"]) is not None
        for command in commands(markdown(kit)):
            hidden = _shown(command)
            if not there and ("restic" in command.split()[0] or PLAIN in command):
                checks.append(
                    Check(name=hidden, ok=False, expected="exit code 0",
                          found="restic is not installed on this machine")
                )  # fmt: skip
                continue
            told(hidden)
            began, at = time.monotonic(), now_ns()
            # by a file: the password may be in it, and a process list is no place for one
            script.write_text(command + "\n", encoding="utf-8")
            done = subprocess.run(
                _confined(["sh", str(script)], folder, kit),
                cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                check=False, timeout=_TIMEOUT_S,
            )  # fmt: skip
            spent = time.monotonic() - began
            good = done.returncode == 0
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
            steps.append(Step(name=hidden, started_ns=at, seconds=spent, ok=good))
            checks.append(
                Check(name=hidden, ok=good, expected="exit code 0",
                      found=f"exit code {done.returncode}" + ("" if good else f": {last}"))
            )  # fmt: skip
        for name in kit.sources:
            first, second = (_tree(work / way / name) for way in (RESTORED, PLAIN))
            checks.append(
                Check(
                    name="both ways bring back the same",
                    source=name,
                    ok=bool(first) and first == second,
                    expected=_words(first),
                    found=_words(second),
                )
            )
    host, user = place()
    return save(
        repository,
        Draft(
            kind="kit",
            name="the recovery kit on an empty HOME",
            started_ns=started_ns,
            ended_ns=now_ns(),
            host=host,
            user=user,
            repository=repository.id,
            snapshot=kit.snapshot,
            versions=versions(),
            checks=checks,
            steps=steps,
        ),
    )


def _shown(command: str) -> str:
    """A command for people and for the evidence: without what it writes to files."""
    for file, what in ((PASSWORD_FILE, "the password into"), (CONFIG_FILE, "write")):
        if command.endswith(f" > {file}"):
            return f"({what} {file})"
    return command


def _environment(folder: Path) -> dict[str, str]:
    """A bare machine with safetake, restic and Python on its PATH."""
    own = str(Path(sys.executable).parent)
    kept = {name: os.environ[name] for name in ("LANG", "PYTHONPATH") if name in os.environ}
    path = os.pathsep.join([own, "/usr/local/bin", "/usr/bin", "/bin"])
    return {**kept, "PATH": path, "HOME": str(folder / "home"), "TMPDIR": str(folder)}


def _confined(words: list[str], folder: Path, kit: Kit) -> list[str]:
    """Nothing but the scratch folder is written, and the repository's locks."""
    if sandbox.abi() < 3:
        return words
    return sandbox.command(words, [folder, Path(kit.location)], None)


def _tree(root: Path) -> dict[str, str]:
    """Relative path to what it is, for everything below."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(folder) / name
            state = path.lstat()
            what = oct(state.st_mode)
            if stat.S_ISLNK(state.st_mode):
                what += str(path.readlink())
            elif stat.S_ISREG(state.st_mode):
                with path.open("rb") as file:
                    what += hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(root))] = what
    return found


def _words(tree: dict[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(tree.items())).encode("utf-8", "backslashreplace"))
    return f"{len(tree)} entries, {digest.hexdigest()[:16]}"
