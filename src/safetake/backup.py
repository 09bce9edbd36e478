"""One consistent snapshot: prepare all, one barrier over all stores, capture, commit.

The order is the promise. Bulk data is stored before the barrier with nothing held. The barrier
(`barrier.py`) is the one instant that every cut is the state of. After it the rest is stored, then
packs, index and snapshot become durable in that order. What a source could not read makes the run
exit 3; a source that is missing makes it fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake import __version__
from safetake.barrier import AfterCut, Barrier, hold_together
from safetake.clock import go_time, now_ns
from safetake.counts import LOST, counts_of, losses, shrink_limit
from safetake.errors import SafetakeError, SourceError, UsageError
from safetake.hostname import host_name
from safetake.model import CaptureContext, Captured, Node, Parent, Progress, Session, Source
from safetake.repository.keys import user_name
from safetake.repository.threads import fast_switches
from safetake.repository.writer import GivenUpError
from safetake.scratch import scratch_folder
from safetake.snapshots import (
    BACKUP_TAG,
    MANIFEST_NAME,
    META_FOLDER,
    STORED,
    list_snapshots,
    read_manifest,
    root_nodes,
)

if TYPE_CHECKING:
    from safetake.config import BarrierConfig, Config
    from safetake.repository import Repository
    from safetake.repository.writer import RepositoryWriter

_CHUNK = 1 << 20
_LOSSES = 10
"""Notes about what a source lost, at most."""


@dataclass(slots=True)
class BackupReport:
    """A backup that is durable."""

    id: str
    time_ns: int
    job: str
    barrier: Barrier
    sources: dict[str, Captured]
    added_bytes: int
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of each phase."""

    @property
    def exit_code(self) -> int:
        """3 when something was not read."""
        return 3 if any(captured.unread for captured in self.sources.values()) else 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake backup`."""
        return {
            "id": self.id,
            "short_id": self.id[:8],
            "time": go_time(self.time_ns),
            "job": self.job,
            "rung": STORED,
            "sources": {
                name: {
                    "type": entry_type(captured),
                    "bytes": captured.bytes,
                    "rung": STORED,
                    "method": captured.method,
                    "one_moment": captured.one_moment,
                    "hold_ms": self.barrier.holds_ms.get(name, 0.0),
                    "unread": captured.unread,
                    "notes": captured.notes,
                }
                for name, captured in self.sources.items()
            },
            "barrier_ms": self.barrier.ms,
            "skew_ms": self.barrier.skew_ms,
            "barrier_attempts": self.barrier.attempts,
            "added_bytes": self.added_bytes,
            "seconds": round(self.seconds, 3),
            "phases": {name: round(seconds, 3) for name, seconds in self.phases.items()},
        }


def entry_type(captured: Captured) -> str:
    """The type of the source that was captured."""
    return str(captured.facts["type"])


def chosen_sources(config: Config, words: list[str] | None, job: str | None) -> list[str]:
    """The names that a backup is over: given ones, a job's, or all. Raises UsageError."""
    if not config.sources:
        raise UsageError(
            "the configuration has no source", hint="add a [sources.NAME] section, see `init`"
        )
    names = list(words or [])
    if not names and job is not None:
        if job not in config.jobs:
            raise UsageError(f"there is no job {job!r} in the configuration")
        names = list(config.jobs[job].sources)
    if not names:
        return list(config.sources)
    for name in names:
        if name not in config.sources:
            from safetake.wording import nearest

            raise UsageError(
                f"there is no source {name!r} in the configuration{nearest(name, config.sources)}",
                hint="see [sources] in the configuration",
            )
    return list(dict.fromkeys(names))


def run_backup(
    config: Config,
    *,
    sources: list[str] | None = None,
    job: str | None = None,
    progress: Progress | None = None,
    opened: Callable[[], Repository] | None = None,
    still: Callable[[], None] = lambda: None,
) -> BackupReport:
    """Take one snapshot; it is durable when this returns (rung `stored`).

    `opened` gives the repository, where somebody has begun to open it (`ahead`). `still` is called
    right after the cut: what it raises ends the backup, and nothing of it is visible.
    Raises SourceError when a source is missing, empty or cannot be held, StorageError when the
    repository cannot take it, RepositoryLockedError. Nothing half-done is visible after a failure.
    """
    from safetake.connect import open_repository
    from safetake.services.elsewhere import UNUSED, elsewhere
    from safetake.sources import build

    names = chosen_sources(config, sources, job)
    # scrypt takes half a second outside the GIL: meanwhile the sources' libraries are imported
    with ThreadPoolExecutor(1, "open") as pool:
        opening = pool.submit(opened or (lambda: open_repository(config)))
        built = [build(name, config.sources[name]) for name in names]
    with opening.result() as repository:
        repository.lock_wait = config.repository.lock_wait  # it may have been opened before that
        report = take_snapshot(
            repository,
            built,
            barrier=config.barrier,
            job=job or "",
            progress=progress,
            shrink={name: shrink_limit(config, name) for name in names},
            still=still,
        )
    for one in elsewhere(config, names, ask=False):
        report.sources[one.source].notes.append(f"{UNUSED}: {one}; {one.hint}")
    return report


def take_snapshot(
    repository: Repository,
    sources: list[Source],
    *,
    barrier: BarrierConfig,
    job: str = "",
    progress: Progress | None = None,
    shrink: Mapping[str, float | None] | None = None,
    still: Callable[[], None] = lambda: None,
) -> BackupReport:
    """`run_backup` on an open repository (a daemon opens once)."""

    def after_cut(sessions: dict[str, Session]) -> bool:
        still()
        return True

    with snapshot_taken(
        repository,
        sources,
        barrier=barrier,
        job=job,
        progress=progress,
        after_cut=after_cut,
        shrink=shrink,
    ) as report:
        return report


@contextlib.contextmanager
def snapshot_taken(
    repository: Repository,
    sources: list[Source],
    *,
    barrier: BarrierConfig,
    job: str = "",
    tags: Sequence[str] = (BACKUP_TAG,),
    progress: Progress | None = None,
    after_cut: AfterCut | None = None,
    eager: Collection[str] = (),
    shrink: Mapping[str, float | None] | None = None,
) -> Iterator[BackupReport]:
    """A durable snapshot whose sessions stay open while the block runs.

    A source that lost its share of `shrink` since the snapshot before says so in its notes.

    `after_cut` is called right after the stores were let go; when it says False, or raises, the
    cut is of no use: it is taken again, or the snapshot fails and nothing of it is visible.
    """
    report = progress or (lambda what, done, total: None)
    clock = _Phases()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        stack.enter_context(fast_switches())
        stack.enter_context(repository.lock(exclusive=False))
        repository.reload()  # what was known before the lock may have been pruned since
        repository.storage.sweep()
        parents = _parents(repository, sources)
        writer = stack.enter_context(repository.writer())
        reader = writer.reader(repository)
        clock.enter("prepare")
        sessions: dict[str, Session] = {}
        for source in sources:
            folder = scratch / source.name
            folder.mkdir(mode=0o700)
            session = source.session(
                CaptureContext(
                    writer, parents.get(source.name), folder, report, reader, source.name in eager
                )
            )
            stack.callback(session.close)
            sessions[source.name] = session
        with ThreadPoolExecutor(max(1, len(sessions)), "source") as pool, _given_up(writer):
            _all(pool, {name: session.prepare for name, session in sessions.items()}, writer)
            clock.enter("drain")
            writer.drain()
            clock.enter("barrier")
            order = [source.name for source in sorted(sources, key=lambda s: s.hold_rank)]
            moment = hold_together({name: sessions[name] for name in order}, barrier, after_cut)
            clock.enter("capture")
            captured = _all(
                pool, {name: session.capture for name, session in sessions.items()}, writer
            )
        types = {source.name: source.type for source in sources}
        for name, found in captured.items():
            found.notes += _lost(types[name], parents.get(name), found, (shrink or {}).get(name))
            found.facts["type"] = types[name]
        clock.enter("commit")
        parent_ids = sorted({str(parent.entry["snapshot"]) for parent in parents.values()})
        yield _commit(repository, writer, captured, moment, job, tags, parent_ids, clock)


@contextlib.contextmanager
def _given_up(writer: RepositoryWriter) -> Iterator[None]:
    """An interrupt ends the sources' threads at their next buffer, not when they are done."""
    try:
        yield
    except BaseException:
        writer.cancel()
        raise


def _all(
    pool: ThreadPoolExecutor, work: dict[str, Any], writer: RepositoryWriter
) -> dict[str, Any]:
    """Run one function for each source at once; a failure ends them all, and is raised.

    What several sources found wrong at the same time is told together.
    """
    futures = {name: pool.submit(function) for name, function in work.items()}
    done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
    if any(future.exception() is not None for future in done):
        writer.cancel()  # the others would go on copying for nothing
    failures: list[tuple[str, BaseException]] = []
    for name, future in futures.items():
        error = future.exception()
        if error is not None and not isinstance(error, GivenUpError):
            failures.append((name, error))
    if not failures:
        return {name: future.result() for name, future in futures.items()}
    name, error = failures[0]
    others = [f"{other}: {problem}" for other, problem in failures[1:]]
    if isinstance(error, SafetakeError) and others:
        error.args = ("\n".join([str(error), *others]),)
    raise error


def _parents(repository: Repository, sources: list[Source]) -> dict[str, Parent]:
    """For each source the newest snapshot that has it."""
    wanted = {source.name: source.type for source in sources}
    found: dict[str, Parent] = {}
    # before the index: what another backup stored after it was read is not in it
    snapshots = list_snapshots(repository, proofs=False)
    reader = repository.reader(trust_digests=False)  # some trees: not worth loading digests for
    host = host_name()
    for snapshot in reversed(snapshots):
        if not wanted:
            break
        mine = [name for name in snapshot.sources if name in wanted]
        if not mine or snapshot.document.get("hostname") != host:
            continue
        manifest = read_manifest(reader, snapshot)
        nodes = root_nodes(reader, snapshot)
        for name in mine:
            kind = wanted.pop(name)
            entry = (manifest or {}).get("sources", {}).get(name)
            if entry is None or entry.get("type") != kind or name not in nodes:
                continue
            subtree = nodes[name].subtree
            if subtree is None or entry.get("tree") != subtree.hex():
                continue  # `restic rewrite` left something out: the manifest is not about this tree
            entry["snapshot"] = snapshot.id
            found[name] = Parent(entry, nodes[name], reader)
    return found


def _lost(kind: str, parent: Parent | None, found: Captured, share: float | None) -> list[str]:
    """What the source lost since the snapshot before, for people."""
    if share is None or parent is None:
        return []
    before = counts_of(kind, parent.entry.get("facts") or {})
    now = counts_of(kind, found.facts)
    if before is None or now is None:
        return []
    told = [f"{LOST}: {loss}" for loss in losses(before, now, share)]
    return told[:_LOSSES] + (
        [f"{LOST}: … {len(told) - _LOSSES} more"] if len(told) > _LOSSES else []
    )


def _commit(
    repository: Repository,
    writer: RepositoryWriter,
    captured: dict[str, Captured],
    moment: Barrier,
    job: str,
    tags: Sequence[str],
    parents: list[str],
    clock: _Phases,
) -> BackupReport:
    entries = {}
    for name, found in captured.items():
        facts = {key: value for key, value in found.facts.items() if key != "type"}
        if found.node.name != name or found.node.subtree is None:
            raise SourceError(f"source {name} gave no folder of its own name")
        entries[name] = {
            "type": found.facts["type"],
            "path": name,
            "tree": found.node.subtree.hex(),
            "bytes": found.bytes,
            "method": found.method,
            "one_moment": found.one_moment,
            "hold_ms": moment.holds_ms.get(name, 0.0),
            "facts": facts,
            "fingerprint": found.fingerprint,
            "unread": found.unread,
            "notes": found.notes,
        }
    manifest = {
        "safetake": __version__,
        "format": 1,
        "time": go_time(moment.time_ns),
        "job": job,
        "hostname": host_name(),
        "barrier": {
            "ms": moment.ms,
            "skew_ms": moment.skew_ms,
            "attempts": moment.attempts,
            "order": list(moment.holds_ms),
        },
        # the packs still open are not counted: what this snapshot added, but for its last trees
        "added_bytes": writer.stats.stored_bytes,
        "sources": entries,
    }
    meta = _meta(writer, manifest)
    nodes = [found.node for found in captured.values()]
    root = writer.save_tree([*nodes, meta])
    writer.flush()
    document: dict[str, Any] = {
        "time": go_time(moment.time_ns),
        **({"parent": parents[-1]} if parents else {}),
        "tree": root.hex(),
        "paths": [f"/{name}" for name in captured],
        "hostname": host_name(),
        "username": user_name(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "tags": ["safetake", *([f"job={job}"] if job else []), *tags],
        "program_version": f"safetake {__version__}",
    }
    snapshot = repository.save_snapshot(document)
    repository.remember(node.subtree for node in nodes if node.subtree is not None)
    clock.enter("")
    return BackupReport(
        id=snapshot,
        time_ns=moment.time_ns,
        job=job,
        barrier=moment,
        sources=captured,
        added_bytes=writer.stats.stored_bytes,
        seconds=sum(clock.seconds.values()),
        phases=clock.seconds,
    )


def _meta(writer: RepositoryWriter, manifest: dict[str, Any]) -> Node:
    """The `.safetake` folder: the manifest, and the script that joins what is stored in parts."""
    from safetake.columns import JOIN_SCRIPT

    text = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    nodes = []
    for name, content, mode in (
        (MANIFEST_NAME, text.encode(), 0o600),
        ("join.py", JOIN_SCRIPT.encode(), 0o700),
    ):
        ids = []
        for at in range(0, len(content), _CHUNK):
            ids += writer.store(content[at : at + _CHUNK]).result()
        nodes.append(
            Node(
                name,
                "file",
                mode=stat.S_IFREG | mode,
                mtime_ns=now_ns() if name == MANIFEST_NAME else 0,
                uid=os.getuid(),
                gid=os.getgid(),
                size=len(content),
                links=1,
                content=ids,
            )
        )
    return Node(
        META_FOLDER,
        "dir",
        mode=stat.S_IFDIR | 0o700,
        mtime_ns=now_ns(),
        uid=os.getuid(),
        gid=os.getgid(),
        subtree=writer.save_tree(nodes),
    )


class _Phases:
    """Seconds of each phase, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = "open"
        self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now


__all__ = [
    "BackupReport",
    "Barrier",
    "chosen_sources",
    "run_backup",
    "snapshot_taken",
    "take_snapshot",
]
