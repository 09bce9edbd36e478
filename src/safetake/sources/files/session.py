"""One capture of a folder: read everything, let the barrier fix a moment, then look once more.

`prepare` reads what differs from the parent; `hold` only reads the clock; `capture` walks again
and decides for each entry, by its stamps, which version was there at the cut (`cut.judge`). What
was changed after the cut is kept as it was seen before it, and what cannot be known is told: as a
note when the snapshot holds an earlier state that is whole, as unread when something is missing
or torn.

A folder whose listing is the parent's, down to the last change time, is taken over as a whole.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from safetake.errors import SourceError
from safetake.model import CaptureContext, Captured, Cut
from safetake.sources.files.assembly import Assembly
from safetake.sources.files.base import Base, base_of, fingerprint_of
from safetake.sources.files.cut import FilesCut, clock_set_back_ns, fix_cut, foreign_clock
from safetake.sources.files.facts import Totals
from safetake.sources.files.metadata import node_of, xattrs_of
from safetake.sources.files.survey import Survey
from safetake.sources.files.told import Told

if TYPE_CHECKING:
    from safetake.config import FilesConfig

METHOD = "read before, judged by change times at the cut"


class FilesSession:
    """One capture of one folder."""

    def __init__(self, name: str, config: FilesConfig, context: CaptureContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._notes = Told(3)
        self._unread = Told(100)
        self._started = FilesCut(time.time_ns(), time.monotonic_ns())
        self._base: Base | None = None
        self._survey: Survey | None = None
        self._cut: FilesCut | None = None

    def prepare(self) -> None:
        """Read everything that differs from the parent. Raises SourceError."""
        self._base, problem = base_of(self._context)
        if problem:
            self._notes.add(problem, self._name)
        self._survey = Survey(self._name, self._config, self._context, self._base)
        self._survey.run()

    def hold(self, timeout: float) -> Cut:
        """Fix the cut by the clock. Nothing is locked: files know no lock."""
        self._cut = fix_cut()
        return Cut(held_ns=self._cut.monotonic_ns, fixed_ns=self._cut.monotonic_ns)

    def release(self) -> None:
        """Nothing is held."""

    def capture(self) -> Captured:
        """Walk again, decide for each entry, store the trees. Raises SourceError."""
        if self._cut is None or self._survey is None:
            raise SourceError(f"source {self._name}: captured without a cut")
        work = Assembly(
            self._context, self._survey, self._base, self._cut, self._unread, self._notes
        )
        root = self._survey.open_root()
        try:
            status = os.fstat(root)
            node = node_of(self._name, status)
            node.xattrs = xattrs_of(root)
            node.subtree = work.run(root)
        except OSError as error:
            raise SourceError(
                f"source {self._name}: cannot read {self._config.path}: {error.strerror}",
                hint="look at the file system that it is on",
            ) from error
        finally:
            os.close(root)
        self._check_not_empty(work.totals)
        foreign = foreign_clock(status.st_dev)
        self._tell_about_clocks(foreign)
        facts = work.totals.facts()
        size, path = work.largest
        facts["largest"] = {"path": ascii(path)[1:-1], "bytes": size}
        return Captured(
            node=node,
            bytes=work.totals.bytes,
            facts=facts,
            fingerprint=fingerprint_of(work.flats),
            one_moment=not foreign,
            method=METHOD,
            unread=self._unread.lines(),
            notes=self._notes.lines(),
        )

    def _check_not_empty(self, totals: Totals) -> None:
        if self._config.may_be_empty or totals.files + totals.symlinks + totals.others:
            return
        raise SourceError(
            f"source {self._name}: there is no file in {self._config.path}",
            hint="mount the volume, correct the path, or set may_be_empty = true",
        )

    def _tell_about_clocks(self, foreign: str) -> None:
        if foreign:
            reason = f"a file system of type {foreign} stamps by another clock: not one moment"
            self._notes.add(reason, self._name)
        if lost := clock_set_back_ns(self._started):
            self._unread.add(
                f"the clock was set back by {lost / 1e9:.3f} s while the files were captured,"
                " so that change times do not tell what was there at the cut",
                self._name,
            )

    @property
    def files_read(self) -> int:
        """How many files were opened and read so far."""
        return 0 if self._survey is None else self._survey.contents.files_read

    def close(self) -> None:
        """Drop the spool and the open buffer. Idempotent."""
        if self._survey is not None:
            self._survey.contents.close()
            self._survey.known.close()
