"""How a live SQLite database is replaced by one out of a snapshot, and put back.

Three ways, each in a module of its own: `offline` (nobody uses it: the file is changed for the new
one), `online` (into the live database while applications stay connected) and `besides` (a new file
beside it). This module chooses, looks for traps first and does what they share. The live file's
owner, mode and attributes win over the snapshot's: its application must be able to open it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw

from safetake.config import SqliteConfig
from safetake.errors import DamagedError, RefusedError, SourceError
from safetake.model import (
    Check,
    Loss,
    Node,
    Reader,
    RestoreOutline,
    RestoreWork,
    Session,
    Wanted,
)
from safetake.sources.sqlite import facts, live, traps
from safetake.sources.sqlite.besides import Beside
from safetake.sources.sqlite.inuse import files_of, users_of
from safetake.sources.sqlite.losses import losses
from safetake.sources.sqlite.marker import TABLE
from safetake.sources.sqlite.offline import Offline
from safetake.sources.sqlite.online import Online
from safetake.sources.sqlite.proof import questions

_MODES = ("offline", "online", "beside")
_PATH = "path"
_MARGIN = 1 << 20
"""For the mark, the journal and some folders."""


class SqliteRestorer:
    """`model.Restorer` for a database file."""

    type = "sqlite"

    def __init__(self, name: str, config: SqliteConfig) -> None:
        self.name = name
        self._config = config
        self._online: Online | None = None

    def outline(
        self,
        entry: Mapping[str, Any],
        mode: str,
        options: Mapping[str, Any],
        reader: Reader,
        node: Node,
    ) -> RestoreOutline:
        """See `model.Restorer`."""
        path = self._real()
        raw = bool(entry["facts"].get("raw"))
        if not raw and (why := traps.short(entry["facts"])):
            raise RefusedError(f"the snapshot of {self.name} is of no use: {why}")
        users = users_of(path)
        in_use = bool(users.found) or mode == "online"
        seen = traps.look(path, self._config.busy_timeout, in_use=in_use)
        chosen = mode or self._choose(seen, users.found, options, raw=raw)
        if chosen not in _MODES:
            raise RefusedError(f"{self.name}: there is no way to restore called {chosen!r}")
        if raw and chosen != "offline":
            raise RefusedError(
                f"{self.name}: a safety copy of raw files can only be put in the place of the file",
                hint="stop the applications that use it, and restore without `--online`",
            )
        if raw:
            _raw_file(reader, node, path)
        warnings = traps.refuse_place(seen, chosen)
        if chosen == "online":
            traps.refuse_online(seen, reader, node)
            warnings.append(
                "applications stay connected; what they write between the switch and a way back is"
                " lost with it"
            )
        warnings += traps.litestream(seen, users, chosen)
        if seen.hot:
            warnings.append(
                f"an application was killed in a transaction of {path}: it is undone before what is"
                " there now is saved, as at the application's next start"
            )
        if chosen == "offline" and not options.get("can_stop") and users.found:
            raise RefusedError(
                f"{path} is in use by {users.sentence()}"
                + (f", and {seen.damaged}" if seen.damaged else ""),
                hint="stop it, or name it as a service with `stop` and `start`"
                + ("" if seen.damaged or raw else "; or restore with `--online`"),
            )
        return RestoreOutline(
            mode=chosen,
            target=str(path),
            space=self._space(entry, seen, chosen),
            losses=self._losses(entry, seen, reader, node, raw=raw),
            warnings=warnings,
            absent=seen.state is None,
            damaged=seen.damaged,
        )

    def place(self) -> Path:
        """The folder of the database; of the file, where its name is a link."""
        return self._real().parent

    def wanted(self, options: Mapping[str, Any]) -> Wanted | None:
        """Everything: a part of it is no store."""
        return None

    def check_staged(self, work: RestoreWork) -> list[Check]:
        """All questions of a proof; raw files only have to be there. Online, what can be done
        before writers are kept out is done here, too.
        """
        work.note(_PATH, str(self._real()))
        if work.entry["facts"].get("raw"):
            staged = work.staged / self._path(work).name
            size = staged.stat().st_size if staged.is_file() else None
            return [Check("the raw file is there", size is not None, "a file", size)]
        checks = [{"name": check.name, "sql": check.sql} for check in self._config.checks]
        answers = questions(work.staged, {**work.entry, "checks": checks})
        if work.mode == "online" and all(answer.ok for answer in answers):
            self._on(work).prepare(work)
        return answers

    def quiet(self, work: RestoreWork) -> None:
        """Offline: nobody has it open, as far as this kernel knows."""
        if work.mode == "offline":
            Offline(self._path(work)).quiet(work)

    def raw_files(self) -> list[Path]:
        """The database and what belongs to it, without the log's index, which is made anew."""
        return [
            path
            for path in files_of(self._real())
            if path.is_file() and not path.name.endswith("-shm")
        ]

    def take_over(self, work: RestoreWork, session: Session) -> bool:
        """Online: keep writers out."""
        return self._on(work).take_over(work, session) if work.mode == "online" else True

    def let_go(self, work: RestoreWork) -> None:
        """Online: let writers in."""
        if self._online is not None:
            self._online.let_go()

    def switch(self, work: RestoreWork) -> None:
        """Put the staged data in the live database's place."""
        self._way(work).switch(work)

    def touched(self, work: RestoreWork) -> bool:
        """Whether the live database was changed."""
        return self._way(work).touched(work)

    def switch_back(self, work: RestoreWork) -> None:
        """The data from before."""
        self._way(work).switch_back(work)

    def confirm(self, work: RestoreWork) -> list[Check]:
        """Online: ask the live database. Else look at the new file, leaving no trace beside it."""
        if work.mode == "online":
            return self._on(work).confirm(work)
        path = self._path(work)
        if work.mode == "beside":
            path = Beside(path).new_path(work)
        return _confirm_file(path, work)

    def finish(self, work: RestoreWork, *, committed: bool) -> None:
        """Drop locks and the mark."""
        if work.mode == "online":
            self._on(work).finish(work, committed=committed)

    # pieces

    def _real(self) -> Path:
        return Path(os.path.realpath(self._config.path))

    def _path(self, work: RestoreWork) -> Path:
        """The live file, as it was when the restore began: half-way its name leads nowhere."""
        noted = work.notes.get(_PATH)
        return Path(noted) if isinstance(noted, str) else self._real()

    def _on(self, work: RestoreWork) -> Online:
        if self._online is None:
            self._online = Online(self._path(work), self._config)
        return self._online

    def _way(self, work: RestoreWork) -> Online | Offline | Beside:
        if work.mode == "online":
            return self._on(work)
        path = self._path(work)
        return Beside(path) if work.mode == "beside" else Offline(path)

    def _choose(
        self, seen: traps.Look, users: list[Any], options: Mapping[str, Any], *, raw: bool
    ) -> str:
        if raw or seen.header is None or options.get("can_stop") or not users:
            return "offline"
        return "online"

    def _space(self, entry: Mapping[str, Any], seen: traps.Look, mode: str) -> dict[Path, int]:
        new = int(entry.get("bytes", 0))
        need = new + _MARGIN
        if mode == "online" and seen.header is not None:
            # the old copy, and the log (or the journal) of the one transaction
            need += seen.bytes + (new if seen.header.wal else seen.bytes)
        return {seen.path.parent: need}

    def _losses(
        self, entry: Mapping[str, Any], seen: traps.Look, reader: Reader, node: Node, *, raw: bool
    ) -> list[Loss]:
        if seen.state is None:
            return []
        if raw or seen.damaged or seen.hot:
            why = "its last transaction was not ended" if seen.hot else seen.damaged
            return [Loss("rows", unknown=why or "the safety copy is no database")]
        timeout = self._config.busy_timeout
        try:
            return losses(seen.path, timeout, reader, node, entry["facts"], TABLE)
        except (SourceError, DamagedError) as error:
            return [Loss("rows", unknown=str(error))]


def _raw_file(reader: Reader, node: Node, path: Path) -> None:
    names = [entry.name for entry in reader.tree(node.subtree)] if node.subtree else []
    if path.name not in names:
        raise RefusedError(f"the safety copy has no {path.name}, only {', '.join(names[:5])}")


def _confirm_file(path: Path, work: RestoreWork) -> list[Check]:
    """Ask the file itself; `immutable` leaves no log, index or journal beside it."""
    known = work.entry["facts"]
    try:
        size = path.lstat().st_size
    except OSError as error:
        return [Check("there", False, str(path), None, str(error))]
    if known.get("raw"):
        return [Check("there", True, str(path), size)]
    expected: Any = known["page_size"] * known["page_count"]
    checks = [Check("size", size == expected, expected, size)]
    # a name with ? or # or % in it is a part of the URI otherwise
    quoted = os.fspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        with live.explained(path):
            connection = apsw.Connection(f"file:{quoted}?immutable=1", flags=flags)
            try:
                schema = facts.schema_hash(connection)
            finally:
                connection.close()
    except SourceError as error:
        return [*checks, Check("opens", False, "a database", None, str(error))]
    expected = known["schema_sha256"]
    return [*checks, Check("schema", schema == expected, expected, schema)]
