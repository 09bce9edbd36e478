"""No two jobs at the same time on one source, nor two at odds on the repository, nor one twice.

Locks are files of the state folder, held by the kernel (`flock`): whatever dies lets go, and the
processes that a job starts hold them, too, so that they are free only when all of it is gone. What
stands in a file is for people only. They bind the processes of one state folder; between machines
the repository's own locks keep the data safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.clock import go_time, now_ns
from safetake.errors import RepositoryLockedError, SafetakeError
from safetake.state import state_folder

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configjobs import JobConfig

_ASK_S = 0.25


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """One lock: a file's name without its ending, and whether others may hold it, too."""

    name: str
    shared: bool = False


def needs(config: Config, name: str, job: JobConfig) -> list[Need]:
    """What a job must hold, in the order in which every job takes it: nobody waits in a circle."""
    found = [Need(f"job-{name}")]
    if job.kind in ("backup", "integrity"):
        found += [Need(f"source-{source}") for source in job.sources or config.sources]
    elif job.kind == "prune":
        found.append(Need("repository"))
    else:
        found.append(Need("repository", shared=True))
    return sorted(found)


def conflict(one: Sequence[Need], other: Sequence[Need]) -> bool:
    """Whether two jobs cannot be at work together."""
    mine = {need.name: need.shared for need in one}
    return any(need.name in mine and not (need.shared and mine[need.name]) for need in other)


def folder(config: Config) -> Path:
    """Where the files are. Raises SafetakeError."""
    location = config.repository.location.encode("utf-8", "surrogateescape")
    return state_folder(
        config.restore.state, "jobs", hashlib.sha256(location).hexdigest()[:32], "locks"
    )


@contextlib.contextmanager
def held(
    place: Path,
    wanted: Sequence[Need],
    job: str,
    *,
    wait: float,
    waiting: Callable[[str], None] = lambda who: None,
) -> Iterator[list[int]]:
    """Hold all of them; gives their descriptors, for processes that shall hold them, too.

    `waiting` is told once for each lock that is not free, with who holds it. Raises
    RepositoryLockedError when one is still not free after `wait` seconds, SafetakeError.
    """
    end = time.monotonic() + wait
    descriptors: list[int] = []
    try:
        for need in wanted:
            descriptors.append(_take(place / f"{need.name}.lock", need, job, end, wait, waiting))
        yield descriptors
    finally:
        for fd in descriptors:
            os.close(fd)


def _take(
    path: Path, need: Need, job: str, end: float, wait: float, waiting: Callable[[str], None]
) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SafetakeError(
            f"cannot open the lock {path}: {error.strerror}",
            hint="set `state` in the [restore] section to a folder that may be written",
        ) from error
    told = False
    try:
        while True:
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if need.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                who = _said(fd)
                if time.monotonic() >= end:
                    raise RepositoryLockedError(
                        f"{_words(need)} is in use by {who}, after {wait:.0f} s of waiting",
                        hint="give the jobs other times, or raise `wait` of this job",
                    ) from None
                if not told:
                    waiting(f"{_words(need)} is in use by {who}")
                    told = True
                time.sleep(_ASK_S)
        if not need.shared:
            document = {"job": job, "pid": os.getpid(), "since": go_time(now_ns())}
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(document).encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _words(need: Need) -> str:
    kind, _, name = need.name.partition("-")
    return f"{kind} {name}" if name else f"the {kind}"


def _said(fd: int) -> str:
    found = _document(os.pread(fd, 4096, 0))
    if not found:
        return "another job"
    return f"job {found['job']} (process {found['pid']}, since {found['since']})"


def _document(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and {"job", "pid", "since"} <= found.keys() else {}


def running(config: Config) -> set[str]:
    """Names of the configured jobs that are at work now, on this machine. Raises SafetakeError."""
    place = folder(config)
    found = set()
    for name in config.jobs:
        with contextlib.suppress(OSError):
            fd = os.open(place / f"job-{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.add(name)
            finally:
                os.close(fd)
    return found
