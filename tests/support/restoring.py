"""The steps of a restore in place in the engine's order, around one restorer, without a journal.

`Steps` stages a snapshot of a `MemoryRepository` and calls what the engine calls; a test runs them
one by one or all together. What `note` records is kept in a file, so that another process can
take over with `work_of`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetake.model import (
    CaptureContext,
    Captured,
    Check,
    Node,
    RestoreOutline,
    Restorer,
    RestoreWork,
    Source,
)
from safetake.restore.plan import RestorePlan, plan_node
from safetake.scratch import scratch_database
from tests.support.memory_writer import MemoryRepository, entry_of, materialise

ID = "0123456789abcdef"


def work_of(
    folder: Path, name: str, entry: Mapping[str, Any], mode: str, **options: Any
) -> RestoreWork:
    """The work in `folder` (`place()/.safetake-restore-NAME`), with the notes that are there."""
    journal = folder / "notes.json"
    notes = json.loads(journal.read_text()) if journal.exists() else {}

    def note(key: str, value: Any) -> None:
        notes[key] = value
        beside = journal.with_suffix(".new")
        beside.write_text(json.dumps(notes))
        beside.replace(journal)

    return RestoreWork(ID, entry, mode, folder, folder / "new" / name, options, notes, note)


def _leave_only(root: Path, places: set[str]) -> None:
    """Remove whatever is not one of `places` below `root`; folders keep their times."""
    for base, folders, files in os.walk(root, topdown=False):
        state = os.lstat(base)
        for name in (*folders, *files):
            path = Path(base, name)
            if os.fspath(path.relative_to(root)) in places:
                continue
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        os.utime(base, ns=(state.st_atime_ns, state.st_mtime_ns))


class Steps:
    """One restore of one source, driven as the engine drives it."""

    def __init__(
        self,
        restorer: Restorer,
        source: Source | None,
        captured: Captured,
        repository: MemoryRepository,
    ) -> None:
        self.restorer = restorer
        self.source = source
        self.captured = captured
        self.repository = repository
        self.entry = entry_of(captured)
        self.safety: Captured | None = None
        self.cuts = 0
        self.work: RestoreWork

    @property
    def node(self) -> Node:
        """The source's folder in the snapshot."""
        return self.captured.node

    def outline(self, mode: str = "", **options: Any) -> RestoreOutline:
        """What the plan would show."""
        return self.restorer.outline(self.entry, mode, options, self.repository, self.node)

    def stage(self, mode: str, **options: Any) -> list[Check]:
        """Make `work`, stage the snapshot and check it."""
        place = self.restorer.place() or Path(tempfile.mkdtemp())
        folder = place / f".safetake-restore-{self.restorer.name}"
        (folder / "new").mkdir(mode=0o700, parents=True)
        self.work = work_of(folder, self.restorer.name, self.entry, mode, **options)
        materialise(self.repository, self.node, self.work.staged)
        wanted = self.restorer.wanted(options)
        if wanted is not None:
            name = self.restorer.name
            with scratch_database() as database:
                plan = RestorePlan(database)
                plan_node(self.repository, self.node, name, plan, wanted=wanted)
                places = {path for path, _ in (*plan.folders(), *plan.others())}
                places |= {path for _, path in plan.links()}
                _leave_only(self.work.staged.parent, places | {file.path for file in plan.files()})
                self.work.note("staged", plan.facts())
        return self.restorer.check_staged(self.work)

    @contextlib.contextmanager
    def saved(self, after_cut: Callable[[], object] = lambda: None) -> Iterator[None]:
        """The safety snapshot; its session stays open while the block switches."""
        if self.source is None:
            yield
            return
        with tempfile.TemporaryDirectory() as scratch:
            context = CaptureContext(
                self.repository,
                None,
                Path(scratch),
                reader=self.repository,
                eager=self.work.mode == "online",
            )
            session = self.source.session(context)
            try:
                session.prepare()
                while True:
                    self.cuts += 1
                    session.hold(5.0)
                    self.work.safety_ns = time.time_ns()
                    session.release()
                    after_cut()
                    if self.work.mode != "online" or self.restorer.take_over(self.work, session):
                        break
                self.safety = session.capture()
                yield
            finally:
                session.close()
                self.restorer.let_go(self.work)

    def switch(self) -> list[Check]:
        """From quiet to confirm."""
        if self.work.mode == "offline":
            self.restorer.quiet(self.work)
        with self.saved():
            self.restorer.switch(self.work)
        return self.restorer.confirm(self.work)

    def run(self, mode: str = "", **options: Any) -> RestoreOutline:
        """All of it; fails on the first check that does not hold."""
        outline = self.outline(mode, **options)
        well(self.stage(outline.mode, **options))
        well(self.switch())
        self.restorer.finish(self.work, committed=True)
        return outline


def well(checks: list[Check]) -> None:
    """Fail on what is not as expected."""
    assert checks
    assert [check for check in checks if not check.ok] == []
