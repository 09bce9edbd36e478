"""Is the kit enough? Its commands, run one by one in an empty folder with an empty HOME.

Nothing else is used: no configuration, no cache, no variable of this machine's environment. Both
ways, safetake's and restic's, must bring back the same trees, and the stores in them must answer as
the snapshot says: two ways that are wrong together are not enough.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetake import sandbox
from safetake.clock import now_ns
from safetake.errors import DamagedError
from safetake.evidence import Check, Draft, Evidence, Step, save
from safetake.evidence.versions import place, versions
from safetake.kit.collect import Kit
from safetake.kit.page import (
    CONFIG_FILE,
    MEASURED,
    PASSWORD_FILE,
    PLAIN,
    RESTORED,
    commands,
    markdown,
)
from safetake.proof.verify import OPEN_TIMEOUT_S, question
from safetake.scratch import scratch_folder
from safetake.snapshots import find_snapshot
from safetake.wording import duration

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
    problems = list(kit.damaged)
    measured: dict[str, float] = {"bytes": float(kit.bytes)}
    with scratch_folder(scratch) as folder:
        (folder / "home").mkdir()
        work = folder / "work"
        work.mkdir()
        environment = _environment(folder)
        if kit.first.password is None:  # as its first step says
            (work / PASSWORD_FILE).touch(mode=0o600)
            (work / PASSWORD_FILE).write_text(password + "\n", encoding="utf-8")
        script = folder / "command.sh"
        script.touch(mode=0o600)
        there = shutil.which("restic", path=environment["PATH"]) is not None
        for command in commands(markdown(kit)):
            hidden = _shown(command)
            if not there and _fills(command) == PLAIN:
                checks.append(
                    Check(name=hidden, ok=False, expected="exit code 0",
                          found="restic is not installed on this machine")
                )  # fmt: skip
                continue
            told(hidden)
            began, at = time.monotonic(), now_ns()
            # by a file: the password may be in it, and a process list is no place for one
            script.write_text(command + "\n", encoding="utf-8")
            code, said = _ran(_confined(["sh", str(script)], folder, kit), work, environment)
            spent = time.monotonic() - began
            good = code == 0
            if (key := MEASURED.get(_fills(command))) is not None:
                measured[key] = measured.get(key, 0.0) + spent
            steps.append(Step(name=hidden, started_ns=at, seconds=spent, ok=good))
            checks.append(Check(name=hidden, ok=good, expected="exit code 0", found=said))
        for name in kit.stores:
            checks += _compared(kit, name, work, folder)
        if any(not check.ok for check in checks) and _moved(kit, repository):
            problems.append("a snapshot was made while this ran: check the kit again")
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
            snapshot=kit.newest.id if kit.newest is not None else "",
            versions=versions(),
            checks=checks,
            steps=steps,
            measured=measured,
            problems=problems,
        ),
    )


def _ran(words: list[str], work: Path, environment: dict[str, str]) -> tuple[int | None, str]:
    """Its exit code, and in words how it ended. Nothing that it started goes on after it."""
    process = subprocess.Popen(
        words, cwd=work, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        errors = process.communicate(timeout=_TIMEOUT_S)[1]
    except subprocess.TimeoutExpired:
        return None, f"no end after {duration(_TIMEOUT_S)}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    last = (errors.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
    code = process.returncode
    return code, f"exit code {code}" + (f": {last}" if code else "")


def _compared(kit: Kit, name: str, work: Path, folder: Path) -> list[Check]:
    """Both ways against each other, and against what was recorded at the cut."""
    first, second = (_tree(work / way / name) for way in (RESTORED, PLAIN))
    same = bool(first) and first == second
    found = [
        Check(
            name="both ways bring back the same", source=name, ok=same,
            expected=_words(first), found=_words(second),
        )
    ]  # fmt: skip
    for way, tree in ((RESTORED, first), (PLAIN, second)):
        if not tree or (way == PLAIN and same):
            continue  # named above, or known already: opening may change a copy
        if name not in kit.entries:
            continue  # its snapshot is a problem of the kit
        room = folder / f"{way}-{name}"
        room.mkdir()
        found += [
            Check(name=f"{way}: {one.name}", source=name, ok=one.ok, expected=one.expected,
                  found=one.found, detail=one.detail)
            for one in question(kit.stores[name].type, work / way / name, kit.entries[name], room,
                                OPEN_TIMEOUT_S)
        ]  # fmt: skip
    return found


def _moved(kit: Kit, repository: Repository) -> bool:
    """Whether `latest` of any group is another snapshot by now."""
    for group in kit.groups:
        try:
            newest = find_snapshot(repository, "latest", group.sources)
        except DamagedError:
            return False
        if group.snapshot is None or newest.id != group.snapshot.id:
            return True
    return False


def _shown(command: str) -> str:
    """A command for people and for the evidence: without what it writes to files."""
    for file, what in ((PASSWORD_FILE, "the password into"), (CONFIG_FILE, "write")):
        if command.endswith(f" > {file}"):
            return f"({what} {file})"
    return " ".join(command.replace("\\\n", " ").split())


def _fills(command: str) -> str:
    """The folder of the way that a command belongs to; restic's list of snapshots to its way."""
    words = shlex.split(command)
    for way in (RESTORED, PLAIN):
        if any(word == way or word.startswith(f"{way}/") for word in words):
            return way
    return PLAIN if words[0] == "restic" else ""


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
    return sandbox.command(words, [folder, Path(kit.first.location)], None)


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
