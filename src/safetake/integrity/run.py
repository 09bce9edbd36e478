"""The daily look at the live data: each store by itself, references between stores, drift.

Reads only, and takes no longer hold of a store than a backup does. Everything that could not be
asked is in the report, with the reason. What it cannot see is in docs/how-to/integrity.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from safetake import clock
from safetake.errors import SafetakeError, UsageError
from safetake.findings import Asked, Asking, Finding, not_asked
from safetake.integrity.newest import newest
from safetake.integrity.report import IntegrityReport
from safetake.integrity.stores import ask_store
from safetake.model import Parent, Progress
from safetake.scratch import scratch_folder
from safetake.wording import nearest

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository

_DAY_NS = 86_400 * 10**9
NO_REPOSITORY = "there is no repository to compare with"


def run_integrity(
    config: Config,
    sources: list[str] | None = None,
    repository: Repository | None = None,
    progress: Progress | None = None,
    *,
    full: bool | None = None,
    no_repository: str = NO_REPOSITORY,
    now_ns: int | None = None,
) -> IntegrityReport:
    """Ask about the sources named, or about all of them.

    `full`: every byte of files and `integrity_check` of any database (True), or the quick forms
    only (False). Without a repository, `no_repository` says why. `now_ns` decides which part of a
    sample is due. Raises UsageError for an unknown source; what is found is never raised.
    """
    begun = time.perf_counter()
    names = _chosen(config, sources)
    report = IntegrityReport(sources=names)
    run = _Run(config, full, clock.now_ns() if now_ns is None else now_ns, progress, no_repository)
    asked: dict[str, Asked] = {}
    files = [name for name in names if config.sources[name].type == "files"]
    with contextlib.ExitStack() as held:
        # what files are compared with must not be pruned meanwhile
        run.look(repository, names, held)
        for name in files:
            asked[name] = run.ask(name)
    for name in names:
        if name not in files:
            asked[name] = run.ask(name)
    for name in names:
        report.add(asked[name].findings)
        report.facts[name] = asked[name].facts
    report.add(_between(config, sources, repository, run.no_entry))
    report.seconds = time.perf_counter() - begun
    return report


def _chosen(config: Config, sources: list[str] | None) -> list[str]:
    for name in sources or ():
        if name not in config.sources:
            raise UsageError(f"there is no source {name!r}{nearest(name, config.sources)}")
    return [name for name in config.sources if sources is None or name in sources]


class _Run:
    """What all sources of one run share."""

    def __init__(
        self,
        config: Config,
        full: bool | None,
        now_ns: int,
        progress: Progress | None,
        no_entry: str,
    ) -> None:
        self._config = config
        self._full = full
        self._turn = now_ns // _DAY_NS
        self._progress = progress
        self._parents: dict[str, Parent] = {}
        self.no_entry = no_entry

    def look(
        self, repository: Repository | None, names: list[str], held: contextlib.ExitStack
    ) -> None:
        """Find the newest snapshot of each source, and keep it while `held` is open."""
        if repository is None:
            return
        kinds = [(name, self._config.sources[name].type) for name in names]
        try:
            held.enter_context(repository.lock(exclusive=False))
            repository.reload()  # what was known before the lock may have been pruned since
            self._parents = newest(repository, kinds)
            self.no_entry = "there is no snapshot of it by this host yet"
        except SafetakeError as error:
            self.no_entry = f"the repository cannot be asked: {error}"

    def ask(self, name: str) -> Asked:
        """The questions to one source."""
        options = self._config.integrity
        if self._progress is not None:
            self._progress(name, 0, 0)
        parent = self._parents.get(name)
        try:
            with scratch_folder(options.scratch) as folder:
                asking = Asking(
                    name,
                    folder,
                    None if parent is None else parent.entry,
                    self.no_entry,
                    self._full,
                    options.quick_above,
                    parent,
                    None if self._full else options.read_bytes,
                    self._turn,
                )
                return ask_store(self._config.sources[name], asking, options.timeout)
        except SafetakeError as error:
            return Asked([Finding(name, "asked", False, "error", str(error), [], error.hint)])
        except OSError as error:
            detail = f"it cannot be asked: {error.filename or ''} {error.strerror or error}"
            hint = "make room in the scratch folder, or name another in [integrity]"
            return Asked([Finding(name, "asked", False, "error", detail, [], hint)])


def _between(
    config: Config, sources: list[str] | None, repository: Repository | None, no_entry: str
) -> Iterator[Finding]:
    """References, and drift."""
    from safetake.integrity.drift import check_drift
    from safetake.integrity.references import check_references

    try:
        yield from check_references(config, sources, scratch=config.integrity.scratch)
    except SafetakeError as error:
        detail = str(error)
        yield Finding("", "references", False, "error", detail, [], error.hint)
    if repository is None:
        for name in _chosen(config, sources):
            yield not_asked(name, "drift", no_entry)
        return
    try:
        yield from check_drift(config, sources, repository)
    except SafetakeError as error:
        yield Finding("", "drift", False, "error", str(error), [], error.hint)
