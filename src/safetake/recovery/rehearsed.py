"""A drill in place: the same steps over a snapshot of what is there, so that nothing is lost.

What is put in is what is there, and that is not believed but looked at: before the switch the
safety copy must hold what the snapshot holds, or somebody wrote in between and it goes back with
nothing changed; after the switch, before any service starts, the live store is captured once more
and must hold it, too. On a way back that begins later, what was written since would go with the
data: such a store stays as it is, since going back would change nothing else in it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.clock import now_ns
from safetake.columns import LAYOUT_NAME, PARTS_SUFFIX, join
from safetake.errors import DamagedError, RefusedError, RestoreError, SafetakeError, SourceError
from safetake.model import Captured
from safetake.recovery import written
from safetake.recovery.engine import Engine
from safetake.recovery.one import One, OpenRepository
from safetake.recovery.outcome import Outcome
from safetake.restore.beside import restore_to
from safetake.scratch import scratch_folder
from safetake.snapshots import find_snapshot

if TYPE_CHECKING:
    from safetake.backup import BackupReport
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo

_FILES = ("files", "dirs", "symlinks", "others", "bytes", "digest")
_SQLITE = ("page_size", "page_count", "content")
_NOT_TAKEN = "the drill ended before its snapshot was taken"


class RehearsedEngine(Engine):
    """`Engine` for a journal whose plan says `drill`.

    Its plan has no sources until the snapshot is taken: a journal that was left like that leads
    back, to services that run.
    """

    def ahead(self, take: Callable[[], SnapshotInfo], plan: Callable[[SnapshotInfo], Any]) -> None:
        """Stop the services, take the snapshot of what they left, and plan with it; the services
        run again when one of these fails, which is raised as `forward` does it.
        """
        try:
            self._stop()
            with self._step("snapshot", "of what is there now") as facts:
                snapshot = take()
                facts["snapshot"] = snapshot.id
            with self._step("plan", "the restore of it"):
                plan(snapshot)
        except BaseException as error:  # noqa: BLE001 - an interrupt, too, must not stay half-way
            self._failed(error)

    def forward(self, repository: OpenRepository) -> Outcome:
        """See `Engine.forward`."""
        if not self._ones:
            return self.back(_NOT_TAKEN)
        return super().forward(repository)

    def _to_run(self, state: dict[str, Any]) -> dict[str, Any]:
        """What it was before: a drill starts nothing that did not run."""
        return state

    def _safe(self, saved: Sequence[One], report: BackupReport, opened: Repository) -> None:
        for one in saved:
            with self._step(f"same:{one.name}", "nobody wrote since the snapshot", again=True):
                captured = report.sources[one.name]
                if _same_facts(one.restorer.type, one.work.entry, captured):
                    continue
                if one.restorer.type == "redis" and self._expired_only(one, report.id, opened):
                    continue
                raise RefusedError(
                    f"{one.name} was written after the drill's snapshot was taken: nothing of it "
                    "was replaced",
                    hint="stop what writes there, or name it as a service with `stop` and `start`",
                )

    def _expired_only(self, one: One, snapshot: str, opened: Repository) -> bool:
        """Whether the safety copy lacks nothing but keys whose time was over."""
        with scratch_folder(self._config.drill.scratch) as folder:
            opened.reload()
            restore_to(opened, find_snapshot(opened, snapshot), [one.name], folder / "safety")
            return not _redis_difference(one, folder / "safety" / one.name)

    def _switched(self) -> None:
        for one in self._ones.values():
            if self._journal.step(f"compare:{one.name}"):
                continue
            with self._step(f"compare:{one.name}", "what is live now with the snapshot") as facts:
                if why := self._difference(one):
                    raise DamagedError(
                        f"{one.name}: the live store does not hold what the snapshot holds: {why}"
                    )
                facts["bytes"] = one.work.entry.get("bytes", 0)

    def _kept(
        self, switched: Sequence[One], opening: Callable[[], Repository] | None
    ) -> Collection[str]:
        journal = self._journal
        if journal.step("written"):
            return list(journal.done["written"]["kept"])
        asked = [
            one
            for one in switched
            if journal.step(f"switch:{one.name}") and self._may_be_written(one.name)
        ]
        if not asked:
            return ()
        with self._step("written", "what was written since the switch", again=True) as facts:
            facts["kept"] = kept = [one.name for one in asked if self._written(one)]
        for name in kept:
            saved = str(journal.done.get(f"safety:{name}", {}).get("snapshot", ""))[:8]
            self._warnings.append(
                f"{name} was written since it was replaced, and stays as it is, so that nothing of "
                f"that is lost; before the drill it held what snapshot {saved} holds"
            )
        return kept

    def _as_before(self) -> str:
        kept = list(self._journal.done.get("written", {}).get("kept", ()))
        if not kept:
            return super()._as_before()
        return (
            f"The data is as it was before, and {', '.join(kept)} also holds what was written since"
        )

    def _may_be_written(self, name: str) -> bool:
        from safetake.services import users

        started = (
            f"{word}:{s}" in self._journal.begun
            for s in users(self._config, name)
            for word in ("start", "again-stop")
        )
        return name in self._journal.plan["drill"]["unstopped"] or any(started)

    def _written(self, one: One) -> bool:
        try:
            return bool(self._difference(one))
        except SourceError:
            return False  # nobody can read it: the old data is better
        except (SafetakeError, OSError) as error:
            self._say("written", f"{one.name}: not known ({error})")
            return True

    def _difference(self, one: One) -> str:
        """Between the live store and the snapshot, in words; empty when there is none."""
        from safetake.sources import hotcopy

        with scratch_folder(self._config.drill.scratch) as folder:
            try:
                captured, _ = hotcopy.take(
                    written.live_source(
                        self._config, one.restorer, one.work, raw=one.saved == "raw"
                    ),
                    folder,
                    folder / "now",
                )
            except OSError as error:
                raise RestoreError(
                    f"{one.name} can not be compared: {error.filename or folder}: {error.strerror}",
                    hint="set [drill] scratch to a folder with room for twice the store",
                ) from error
            if captured.unread:
                return "; ".join(captured.unread[:3])
            if captured.facts.get("form") == "aof":
                return f"{captured.facts['tail_commands']} commands were given meanwhile"
            if one.restorer.type == "files":
                return _facts_difference(one.work.entry["facts"], captured.facts, _FILES)
            for parts in sorted((folder / "now").rglob("*" + PARTS_SUFFIX)):
                if (parts / LAYOUT_NAME).is_file():  # Chroma's files, as a restore writes them
                    join(parts, parts.with_suffix(""))
                    shutil.rmtree(parts)
            work = dataclasses.replace(
                one.work, staged=folder / "now", mode="offline", note=lambda key, value: None
            )
            wrong = [check for check in one.restorer.check_staged(work) if not check.ok]
            if not wrong:
                return ""
            if one.restorer.type == "redis":
                return _redis_difference(one, folder / "now")
            first = wrong[0]
            return f"{first.name}: {str(first.found)[:200]} instead of {str(first.expected)[:200]}"


def _same_facts(kind: str, entry: Mapping[str, Any], captured: Captured) -> bool:
    """Whether two captures, the second an increment of the first, are of the same content."""
    tree = captured.node.subtree
    if tree is not None and tree.hex() == entry.get("tree"):
        return True
    before, now = entry["facts"], captured.facts
    if kind == "files":
        return not _facts_difference(before, now, _FILES)
    if kind == "sqlite":
        return not _facts_difference(before, now, _SQLITE)
    if kind == "redis":
        return not _facts_difference(before, now, ("form", "digest"))
    files = [{n: s.get("files") for n, s in f["segments"].items()} for f in (before, now)]
    same = not _facts_difference(before["sqlite"], now["sqlite"], _SQLITE)
    return same and files[0] == files[1]


def _facts_difference(
    before: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]
) -> str:
    """What was not recorded differs, too."""
    return "; ".join(
        f"{name}: {now.get(name)} instead of {before.get(name)}"
        for name in names
        if before.get(name) is None or before.get(name) != now.get(name)
    )


def _redis_difference(one: One, folder: Path) -> str:
    """Between the staged dump and another, without the keys whose time is over."""
    from safetake.sources.redis.likeness import same_content

    staged = one.work.staged / "dump.rdb"
    if not staged.is_file() or [path.name for path in folder.iterdir()] != ["dump.rdb"]:
        return "another content"
    return same_content(staged, folder / "dump.rdb", now_ns() // 1_000_000)
