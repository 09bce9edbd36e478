"""Guards against silent loss: did a store shrink, lose a part, or stop to compress?

Three questions to each source, within the limits of [drift]. What is measured, and what that
cannot see, is in docs/how-to/references.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.clock import go_time
from safetake.clock import now_ns as clock_now_ns
from safetake.config import ChromaConfig, FilesConfig, SqliteConfig
from safetake.counts import LEAST, Loss, losses, shrink_limit
from safetake.errors import DamagedError, SafetakeError
from safetake.findings import KEPT_IDS, Finding, not_asked
from safetake.integrity.accepted import accept, accepted
from safetake.integrity.base import Base, Bases
from safetake.integrity.livecounts import live_counts
from safetake.integrity.turned import Turned, turned_files, turned_pages

if TYPE_CHECKING:
    from safetake.config import Config, SourceConfig
    from safetake.model import Node, Reader
    from safetake.repository import Repository

__all__ = ["accept", "accepted", "check_drift"]

VANISHED, SHRUNK, TURNED = "nothing vanished", "did not shrink", "content still compresses"
"""The three questions, in the same words each day."""
OFF = "it is switched off in [drift], or the source may be empty"


def check_drift(
    config: Config,
    sources: Iterable[str] | None,
    repository: Repository | None,
    *,
    now_ns: int | None = None,
) -> list[Finding]:
    """Three findings for each source (None: all of them).

    Nothing is raised for what is found. Raises SafetakeError when the repository cannot be read,
    or what was accepted.
    """
    names = list(config.sources if sources is None else sources)
    if repository is None:
        return [
            not_asked(name, check, "there is no repository to compare with")
            for name in names
            for check in (VANISHED, SHRUNK, TURNED)
        ]
    now = clock_now_ns() if now_ns is None else now_ns
    findings: list[Finding] = []
    with repository.lock(exclusive=False):
        repository.reload()  # what was known before the lock may have been pruned since
        bases = Bases(repository, int(config.drift.window * 1e9), now)
        there = accepted(config, repository)
        for name in names:
            source = config.sources[name]
            base = bases.of(name, source.type, there.get(name))
            findings += _counted(name, source, base, shrink_limit(config, name))
            limit = config.drift.sources.get(name, config.drift).incompressible
            findings.append(_measured(name, source, base, limit, bases))
    return findings


def _counted(name: str, source: SourceConfig, base: Base, share: float | None) -> Iterator[Finding]:
    why = ""
    if share is None:
        why = OFF
    elif base.counts is None:
        why = "there is no snapshot of it yet" if not base.snapshots else "no snapshot counted it"
    if why or base.counts is None or share is None:
        yield from (not_asked(name, check, why) for check in (VANISHED, SHRUNK))
        return
    try:
        now = live_counts(source)
    except SafetakeError as error:
        detail = f"it cannot be counted: {error}"
        yield not_asked(name, VANISHED, "it cannot be counted")
        yield Finding(name, SHRUNK, False, detail=detail, hint=error.hint)
        return
    found = losses(base.counts, now, share)
    gone = [loss for loss in found if loss.vanished]
    fell = [loss for loss in found if not loss.vanished]
    since = f"since {go_time(base.since_ns)[:19]}Z"
    small = all(loss.before < LEAST for loss in gone)
    yield _finding(name, VANISHED, gone, since, "warning" if small else "error")
    detail = f"{base.counts.total:,} {now.what} at most {since}, {now.total:,} now"
    if now.uncounted:
        detail += f"; not counted: {', '.join(now.uncounted[:5])}"
    yield _finding(name, SHRUNK, fell, since, "error", detail)


def _finding(
    name: str, check: str, found: list[Loss], since: str, level: Any, good: str = ""
) -> Finding:
    if not found:
        return Finding(name, check, True, level, good)
    # the whole store is told first: it is the sum of its parts
    told = [str(loss) for loss in sorted(found, key=lambda loss: (loss.part != "", loss.part))]
    return Finding(
        name,
        check,
        False,
        level,
        f"{since}: {told[0]}" + (f", and {len(told) - 1} more" if len(told) > 1 else ""),
        told[:KEPT_IDS],
        f"bring it back from a snapshot; when it was meant: `safetake integrity --accept {name}`",
    )


def _measured(
    name: str, source: SourceConfig, base: Base, limit: float | None, bases: Bases
) -> Finding:
    """Whether content that replaced other content compresses as that did."""
    if limit is None:
        return not_asked(name, TURNED, OFF)
    if base.oldest is None:
        return not_asked(name, TURNED, "there is no snapshot to compare with")
    snapshot, entry, node = base.oldest
    try:
        found = _turned(source, entry, node, bases)
    except DamagedError as error:
        return not_asked(name, TURNED, f"the snapshot cannot be read: {error}", error.hint)
    except SafetakeError as error:
        return Finding(name, TURNED, False, detail=f"it cannot be read: {error}", hint=error.hint)
    if found is None:
        return not_asked(name, TURNED, "values of this kind of store are not measured")
    seen = f"against snapshot {snapshot.id[:8]}"
    if found.turned < LEAST or found.share < limit:
        detail = f"{found.judged:,} {found.what} replaced {seen}, {found.turned:,} hardly compress"
        return Finding(name, TURNED, True, detail=detail)
    return Finding(
        name,
        TURNED,
        False,
        detail=f"{found.turned:,} of {found.judged:,} {found.what} that were replaced {seen} do"
        " not compress any more: encrypted, or damaged",
        ids=found.examples,
        hint="look at some of them; do not prune; restore from a snapshot before. When it was"
        f" meant: `safetake integrity --accept {name}`",
    )


def _turned(source: SourceConfig, entry: dict[str, Any], node: Node, bases: Bases) -> Turned | None:
    facts = entry.get("facts") or {}
    seed = bases.now_ns
    if isinstance(source, FilesConfig):
        return turned_files(bases.repository, bases.reader, source, node, seed)
    if isinstance(source, SqliteConfig):
        return _pages(bases, source.path, node, facts, seed)
    if isinstance(source, ChromaConfig) and source.path is not None and "sqlite" in facts:
        # vectors hardly compress ever; documents and metadata are in the database
        return _pages(bases, source.path / "chroma.sqlite3", node, facts["sqlite"], seed)
    return None


def _pages(bases: Bases, path: Path, node: Node, facts: dict[str, Any], seed: int) -> Turned | None:
    file = _file(bases.reader, node, str(facts.get("file") or path.name))
    chunk = facts.get("chunk")
    if file is None or not isinstance(chunk, int) or not 512 <= chunk <= 1 << 24:
        return None
    return turned_pages(bases.repository, path, file, chunk, seed)


def _file(reader: Reader, node: Node, name: str) -> Node | None:
    entries = reader.tree(node.subtree) if node.subtree is not None else []
    return next((one for one in entries if one.name == name and one.content), None)
