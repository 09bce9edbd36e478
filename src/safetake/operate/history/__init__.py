"""What has run: every run leaves a record, chained by hash, on this machine and in the repository.

`record` says what one is, `local` keeps them in the state folder, `stored` in the repository, and
`recorded` is how a run is remembered. A record is durable on this machine first; what could not be
brought into the repository goes there with the next run.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.errors import SafetakeError
from safetake.operate.history import stored
from safetake.operate.history.chain import heads, problems
from safetake.operate.history.local import LocalHistory, Opened, State
from safetake.operate.history.record import Record, make
from safetake.operate.history.recorded import Run, recorded

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository

__all__ = ["History", "Record", "Run", "recorded"]


class History:
    """The records of one repository: those of this machine, and (when it is open) of the others."""

    def __init__(
        self,
        config: Config,
        repository: Repository | None = None,
        *,
        now_ns: Callable[[], int] = clock.now_ns,
    ) -> None:
        self.config = config
        self.repository = repository
        self.now_ns = now_ns
        self.trouble: list[str] = []
        """What could not be reached or kept by the calls so far, in words."""

    def local(self) -> LocalHistory:
        """The part on this machine. Raises SafetakeError when there is no place for it."""
        from safetake.state import state_folder

        location = self.config.repository.location.encode("utf-8", "surrogateescape")
        name = hashlib.sha256(location).hexdigest()[:32]
        return LocalHistory(state_folder(self.config.restore.state, "history", name, create=False))

    def records(self, *, since_ns: int = 0) -> list[Record]:
        """All that ended at `since_ns` or later, oldest first; never raises for a part that cannot
        be reached (`trouble` says it)."""
        found: dict[str, Record] = {}
        try:
            local = self.local()
            if self.repository is not None:
                found |= self._synchronise(local)
            for record in local.read(since_ns):
                found[record.id] = record
        except SafetakeError as error:
            self._troubled(error)
            if self.repository is not None and not found:
                found |= self._of_the_repository()
        chosen = [record for record in found.values() if record.ended_ns >= since_ns]
        return sorted(chosen, key=lambda record: (record.ended_ns, record.id))

    def heads(self) -> list[str]:
        """The ends of the chain: publish them, and nobody can rewrite what they stand for."""
        return heads(self.records())

    def unpushed(self) -> int:
        """How many records of this machine are not in the repository yet."""
        state = self._remembered()
        return 0 if state is None else len(state.unpushed)

    def documents(self) -> int:
        """How many documents of the repository hold the history."""
        state = self._remembered()
        return 0 if state is None else len(state.documents)

    def _remembered(self) -> State | None:
        try:
            return self.local().remembered()
        except SafetakeError:
            return None

    def append(
        self,
        kind: str,
        *,
        started_ns: int,
        ended_ns: int | None = None,
        job: str = "",
        exit_code: int = 0,
        trigger: str = "hand",
        error: str = "",
        hint: str = "",
        facts: dict[str, Any] | None = None,
    ) -> Record:
        """Remember a run: in the state folder, then in the repository if that is open.

        One of the two failing is told in `trouble`. Raises SafetakeError when both do.
        """
        from safetake.hostname import host_name
        from safetake.repository.keys import user_name

        def made(previous: list[str]) -> Record:
            return make(
                previous,
                kind=kind,
                job=job,
                started_ns=started_ns,
                ended_ns=self.now_ns() if ended_ns is None else ended_ns,
                exit_code=exit_code,
                host=host_name(),
                user=user_name(),
                trigger=trigger,
                error=error,
                hint=hint,
                facts=facts,
            )

        try:
            local = self.local()
            if self.repository is not None:
                self._synchronise(local, quick=True)
            return self._append(local, made)
        except SafetakeError as failure:
            if self.repository is None:
                raise
            self._troubled(failure)
        record = made(heads(self._of_the_repository().values()))
        stored.push(self.repository, [record])
        return record

    def _append(self, local: LocalHistory, made: Callable[[list[str]], Record]) -> Record:
        repository = self.repository
        pushing: _Push | None = None
        try:
            with local.locked() as log:
                if repository is not None and log.state.repository != repository.id:
                    log.remade(log.state, repository.id)
                record = made(log.state.heads)
                if repository is not None:
                    behind = set(log.state.unpushed)
                    older = [one for one in local.read() if one.id in behind] if behind else []
                    # while this machine's disk is waited for; either may be the first
                    pushing = _Push(repository, [*older, record])
                log.add(record)
                log.sync()
                self._save(log)
        except SafetakeError as failure:
            if pushing is None:
                raise
            self._troubled(failure)
            done = pushing.result()
            if isinstance(done, SafetakeError):
                raise done from failure
            return record
        if pushing is not None:
            done = pushing.result()
            if isinstance(done, SafetakeError):
                self._troubled(done)
            else:
                self._note(local, done)
        return record

    def _save(self, log: Opened) -> None:
        try:
            log.save()
        except SafetakeError as error:
            self._troubled(error)  # it is made again from the log

    def _note(self, local: LocalHistory, documents: dict[str, list[str]]) -> None:
        """Remember which documents hold what; forgetting it only costs reading them again."""
        try:
            with local.locked() as log:
                log.pushed(documents)
                self._save(log)
        except SafetakeError as error:
            self._troubled(error)

    def _synchronise(self, local: LocalHistory, *, quick: bool = False) -> dict[str, Record]:
        """Take in what other machines have stored; what this one could not keep is returned.

        Never raises: the repository may be gone, and this machine's folder of another user.
        """
        repository = self.repository
        assert repository is not None
        state = local.remembered()
        known: dict[str, int] = {}
        if state is not None and state.repository == repository.id and local.fits(state):
            known = state.documents
        try:
            found, there, damaged = stored.fresh(repository, known)
        except SafetakeError as error:
            self._troubled(error)
            return {}
        self.trouble += damaged
        if not found and (quick or len(there) >= len(known)):
            return {}
        try:
            with local.locked() as log:
                if log.state.repository != repository.id:
                    log.remade(log.state, repository.id)
                log.take_in(found)
                documents = log.state.documents
                log.state.documents = {name: documents[name] for name in documents if name in there}
                log.save()
        except SafetakeError as error:
            self._troubled(error)
            return {record.id: record for group in found.values() for record in group}
        return {}

    def _of_the_repository(self) -> dict[str, Record]:
        assert self.repository is not None
        try:
            found, _, damaged = stored.fresh(self.repository, ())
        except SafetakeError as error:
            self._troubled(error)
            return {}
        self.trouble += damaged
        return {record.id: record for group in found.values() for record in group}

    def put_together(self) -> None:
        """Replace many small documents of the repository by few; not where nothing may be removed.

        Never raises.
        """
        if self.repository is None or self.config.retention.append_only:
            return
        try:
            local = self.local()
            self._synchronise(local)
            state = local.remembered()
            if state is None or state.repository != self.repository.id:
                return
            if len(state.documents) >= stored.SMALL:
                written = local.scan().documents.get(self.repository.id, {})
                there = {name: written[name] for name in state.documents if name in written}
                self._note(local, stored.put_together(self.repository, there))
        except SafetakeError as error:
            self._troubled(error)

    def verify(self) -> list[str]:
        """What is wrong with the records: changed, missing, cut off; empty when nothing is."""
        repository = self.repository
        try:
            local = self.local()
            remembered = local.remembered()
            scan = local.scan()
            if repository is None:
                return problems(scan, remembered, None, "")
            documents, _, damaged = stored.fresh(repository, ())
        except SafetakeError as error:
            return [str(error)]
        held = scan.documents.get(repository.id, {})
        found = [text + _held(text, held) for text in damaged]
        return found + problems(scan, remembered, documents, repository.id)

    def _troubled(self, error: SafetakeError) -> None:
        if str(error) not in self.trouble:
            self.trouble.append(str(error))


def _held(damage: str, documents: dict[str, list[str]]) -> str:
    """Which records a damaged document held, when that is known here."""
    for name, ids in documents.items():
        if name in damage and ids:
            return f" (record {', '.join(one[:8] for one in ids[:8])})"
    return ""


class _Push:
    """Storing records in the repository, while the local file is being synced."""

    def __init__(self, repository: Repository, records: list[Record]) -> None:
        self._done: dict[str, list[str]] | SafetakeError = {}
        self._thread = threading.Thread(
            target=self._run, args=(repository, records), name="history", daemon=True
        )
        self._thread.start()

    def _run(self, repository: Repository, records: list[Record]) -> None:
        try:
            self._done = stored.push(repository, records)
        except SafetakeError as error:
            self._done = error

    def result(self) -> dict[str, list[str]] | SafetakeError:
        """What is stored, or why it is not."""
        self._thread.join()
        return self._done
