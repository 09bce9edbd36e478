"""A live server's whole data exchanged for other data, while its clients stay connected.

The live server becomes a replica of a private one (`donor.py`), takes everything, and is a master
again. Which data it holds is read from the server itself: a server that has taken everything from a
master has that master's replication id, and keeps it as its second id when it is a master again.
The ids of our donors are in the journal before each begins, so that after a crash at any moment it
is known which data is there, that nothing was done, or that it stands in between and is repeated.

What was there before is read by one more synchronisation, with writers held, and durable before
anything is changed. The order in `give` is: journal, settings, REPLICAOF, link, comparison,
REPLICAOF NO ONE, persistence, journal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetake.errors import RefusedError, RestoreError, SafetakeError, SourceError
from safetake.model import RestoreWork
from safetake.sources.redis import aof, persistence
from safetake.sources.redis.canonical import SAMPLE_KEYS
from safetake.sources.redis.donor import PER_KEY, Donor, choose_donor
from safetake.sources.redis.likeness import same_content
from safetake.sources.redis.replication import Replica
from safetake.sources.redis.scratch import ScratchError
from safetake.sources.redis.server import Server, parse_info, parse_keyspace
from safetake.sources.redis.settings import Settings, live_config
from safetake.sources.redis.stream import extract
from safetake.sources.redis.wire import Address, Connection, ServerGoneError
from safetake.sources.redis.writers import Writers
from safetake.swap import sync_folder

NEW, OLD, BEFORE, BETWEEN = "new", "old", "before", "between"
"""What a live server holds: the restored data, the data from before (given back), the data from
before (never touched), or something in between."""
LINK_SECONDS = 30.0
"""Until the live server must have reached the donor."""
STALL_SECONDS = 60.0
AGREE_SECONDS = 30.0
_TRIES = 3


class Exchange:
    """One live server and one restore of it. `close` drops the connection and lets writers go."""

    def __init__(self, address: Address, work: RestoreWork) -> None:
        self._address = address
        self._work = work
        self._connection: Connection | None = None
        self.writers = Writers(address)

    def close(self) -> None:
        """Idempotent, never raises."""
        self.writers.let_go()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> Connection:
        """To the live server. Raises SourceError."""
        if self._connection is None:
            self._connection = Connection(self._address)
        return self._connection

    def info(self) -> dict[str, str]:
        """All of INFO; connects again when the connection was lost. Raises SourceError."""
        try:
            return parse_info(self.connection.call("INFO"))
        except ServerGoneError:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        return parse_info(self.connection.call("INFO"))

    # -- where it stands ---------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the live server may have been changed."""
        return bool(self._attempts)

    @property
    def _attempts(self) -> list[dict[str, Any]]:
        found = self._work.notes.get("attempts") or []
        return list(found)

    def stands(self) -> str:
        """NEW, OLD, BEFORE or BETWEEN. Raises RefusedError for a replica of somebody else."""
        attempts = self._attempts
        if not attempts:
            return BEFORE
        info = self.info()
        before = self._work.notes["before"]
        if info.get("role") != "master":
            place = [info.get("master_host"), int(info.get("master_port", 0))]
            if any([a["host"], a["port"]] == place for a in attempts):
                return BETWEEN
            raise RefusedError(
                f"{self._address} has become a replica of {place[0]}:{place[1]}, not by us",
                hint="make it a master again (REPLICAOF NO ONE), then --resume or --rollback",
            )
        if info.get("run_id") == before["run_id"] and info.get("master_replid") == before["replid"]:
            return BEFORE
        for attempt in attempts:
            if info.get("master_replid2") == attempt["replid"]:
                return str(attempt["data"])
        # A restart forgets the ids; what was reached by then was durable before it was noted.
        return str(self._work.notes.get("at") or BETWEEN)

    # -- what is there now -------------------------------------------------------------------

    def save_old(self, folder: Path) -> None:
        """The live data as `folder/dump.rdb`, durable; nobody wrote since, and nobody can.

        Raises SourceError, RestoreError.
        """
        server = Server.ask(self.connection)
        held = self.writers.hold(self.connection)
        self._nobody_wrote_since_the_cut(server, held)
        for _ in range(_TRIES):
            self.writers.hold(self.connection)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            with self._quick_sync():
                replica = Replica(self._address, server, folder, self._work.progress)
                try:
                    replica.join(None)
                    replica.base.rename(folder / "dump.rdb")
                    _durable(folder / "dump.rdb")
                    info = self.writers.hold(self.connection)
                    length = replica.wait_for(int(info["master_repl_offset"]))
                    quiet = not extract(replica.stream, length, folder / "tail").commands
                except OSError as error:
                    raise _cannot_keep(folder, error) from error
                finally:
                    replica.close()
            if info["master_replid"] != replica.replid:
                raise RestoreError(f"{self._address} was restarted or failed over meanwhile")
            if quiet:
                self._work.note("before", {"replid": replica.replid, "run_id": info["run_id"]})
                return
        raise RestoreError(
            f"{self._address} is written to although its writers are held",
            hint="does something else send CLIENT UNPAUSE (another backup)? Stop it, run again",
        )

    def cut_at(self, info: dict[str, str]) -> None:
        """Remember where the safety snapshot was cut."""
        where = {"replid": info["master_replid"], "offset": int(info["master_repl_offset"])}
        self._work.note("cut", where)

    def _nobody_wrote_since_the_cut(self, server: Server, held: dict[str, str]) -> None:
        """The pause is not trusted: what the server sent since the cut is read. Raises
        RestoreError."""
        cut = self._work.notes.get("cut")
        offset = int(held["master_repl_offset"])
        if cut is None or held["master_replid"] != cut["replid"] or offset == cut["offset"]:
            return
        folder = self._work.work / "since"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        replica = Replica(self._address, server, folder, self._work.progress)
        try:
            if not replica.join((cut["replid"], cut["offset"])):
                return  # the server does not remember
            length = replica.wait_for(offset)
            wrote = extract(replica.stream, length, folder / "tail").commands
        finally:
            replica.close()
            shutil.rmtree(folder, ignore_errors=True)
        if wrote:
            raise RestoreError(
                f"{self._address} was written to after the safety snapshot, although its writers"
                " were held",
                hint="does something else send CLIENT UNPAUSE (another backup)? Run again",
            )

    @contextlib.contextmanager
    def _quick_sync(self) -> Iterator[None]:
        """Without the delay in which a server waits for more replicas: writers are waiting."""
        name = "repl-diskless-sync-delay"
        delay = Settings(self.connection, self._work).keep(name)
        self.connection.call("CONFIG", "SET", name, 0)
        try:
            yield
        finally:
            with contextlib.suppress(SourceError):
                self.connection.call("CONFIG", "SET", name, delay)

    # -- exchange ----------------------------------------------------------------------------

    def give(self, data: str, folder: Path) -> None:
        """The live server holds what is in `folder`, durably, and is a master. Writers go on.

        `data` is NEW or OLD. Raises RestoreError; `stands` then says how far it came.
        """
        server = Server.ask(self.connection)
        host, same_host = self.connection.route()
        settings = Settings(self.connection, self._work)
        login = settings.login()
        try:
            donor = Donor(
                choose_donor(server),
                folder,
                self._work.work / "donor",
                host=host,
                username=login.username,
                password=login.password,
                databases=int(live_config(self.connection, "databases") or 0),
            )
        except ScratchError as error:
            raise RestoreError(f"the data cannot be handed over: {error}", hint=PER_KEY) from error
        except OSError as error:
            raise _cannot_keep(self._work.work / "donor", error) from error
        with donor:
            settings.apply(login, same_host=same_host)
            self._attempt(data, donor)
            try:
                self._follow(donor)
            except SafetakeError:
                self._leave(donor)
                raise
            self.writers.let_go()
            checks = self._agree(donor, folder)
            self._promote(donor)
        settings.restore()
        self._work.note("checks", checks)
        self.persist()
        self._work.note("at", data)

    def _attempt(self, data: str, donor: Donor) -> None:
        one = {
            "data": data,
            "replid": donor.replid,
            "host": donor.listen.host,
            "port": donor.listen.port,
        }
        self._work.note("attempts", [*self._attempts, one])

    def _follow(self, donor: Donor) -> None:
        """Until the live server has taken everything. Raises RestoreError."""
        self.connection.call("REPLICAOF", donor.listen.host, donor.listen.port)
        started = moved = time.monotonic()
        last = ""
        while True:
            info = self.info()
            if (
                info.get("master_link_status") == "up"
                and info.get("loading") == "0"
                and info.get("master_replid") == donor.replid
            ):
                return
            if not donor.alive:
                raise RestoreError("the private server that hands over the data ended")
            now, reached = time.monotonic(), donor.full_syncs > 0
            seen = "|".join(
                info.get(name, "")
                for name in ("master_sync_read_bytes", "loading_loaded_bytes", "loading")
            )
            if seen != last:
                last, moved = seen, now
            place = f"{donor.listen.host}:{donor.listen.port}"
            if not reached and now - started > LINK_SECONDS:
                raise RestoreError(
                    f"{self._address} cannot reach this machine at {place}",
                    hint=f"is it in a container, or behind a firewall? {PER_KEY}",
                )
            if now - moved > STALL_SECONDS:
                raise RestoreError(
                    f"{self._address} does not get on with taking the data from {place}",
                    hint="see the server's log (memory, disk)",
                )
            self._work.progress("redis", int(info.get("loading_loaded_bytes") or 0), 0)
            time.sleep(0.02)

    def _leave(self, donor: Donor) -> None:
        """A handover that did not begin: nothing left the donor, so nothing was changed."""
        try:
            if donor.full_syncs:
                return
            self.connection.call("REPLICAOF", "NO", "ONE")
            info = self.info()
            before = self._work.notes["before"]
            untouched = info.get("master_replid2") == before["replid"]
            if donor.full_syncs == 0 and untouched and info.get("run_id") == before["run_id"]:
                replid = info["master_replid"]
                self._work.note("before", {"replid": replid, "run_id": before["run_id"]})
        except SafetakeError:
            return  # it stands in between, which the next step finds out

    def _agree(self, donor: Donor, folder: Path) -> list[dict[str, Any]]:
        """As long as it is a replica nobody writes: it must hold what the donor does."""
        deadline = time.monotonic() + AGREE_SECONDS
        while True:
            info = self.info()
            mine, theirs = parse_keyspace(info), donor.keyspace()
            level = int(info.get("slave_repl_offset", -1)) >= donor.offset
            if level and mine == theirs:
                break
            if time.monotonic() > deadline:
                raise RestoreError(
                    f"{self._address} holds {mine} after the handover, and should hold {theirs}"
                )
            time.sleep(0.02)
        counted = {
            "name": "keys and expiring keys per database, as a replica",
            "ok": True,
            "expected": theirs,
            "found": mine,
        }
        return [counted, *self._compare(folder, sum(db["keys"] for db in mine.values()))]

    def _compare(self, folder: Path, keys: int) -> list[dict[str, Any]]:
        """Every key against the file, where that does not keep the clients waiting for long."""
        name = "every key, expiry and value against the file"
        if keys > SAMPLE_KEYS or not (folder / "dump.rdb").is_file() or _append_only(folder):
            why = "too many keys" if keys > SAMPLE_KEYS else "it is in append-only form"
            return [{"name": f"{name} (not asked: {why})", "ok": True, "found": "not asked"}]
        look = self._work.work / "look"
        shutil.rmtree(look, ignore_errors=True)
        look.mkdir(mode=0o700)
        try:
            with self._quick_sync():
                replica = Replica(
                    self._address, Server.ask(self.connection), look, self._work.progress
                )
                try:
                    replica.join(None)
                finally:
                    replica.close()
            seconds, micros = self.connection.call("TIME")
            now = int(seconds) * 1000 + int(micros) // 1000
            found = same_content(folder / "dump.rdb", replica.base, now)
        except OSError as error:
            raise _cannot_keep(look, error) from error
        finally:
            shutil.rmtree(look, ignore_errors=True)
        if found:
            raise RestoreError(f"{self._address} does not hold what it was given: {found}")
        return [{"name": name, "ok": True, "expected": "equal", "found": "equal"}]

    def _promote(self, donor: Donor) -> None:
        self.connection.call("REPLICAOF", "NO", "ONE")
        info = self.info()
        if info.get("role") != "master" or info.get("master_replid2") != donor.replid:
            raise RestoreError(
                f"{self._address} did not become a master with the restored data",
                hint="is a Sentinel or an operator at work on it?",
            )

    def persist(self) -> None:
        """What the live server holds is on its disk, as far as it is set up to. Raises
        RestoreError."""
        kept = persistence.persist(self.connection, self.info, self._work.progress)
        self._work.note("kept", kept)

    def settings_back(self) -> None:
        """Settings that were changed for the handover are as before; idempotent."""
        Settings(self.connection, self._work).restore()


def _append_only(folder: Path) -> bool:
    return (folder / aof.SINGLE).exists() or (folder / aof.DIRECTORY).exists()


def _durable(path: Path) -> None:
    """Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)
    sync_folder(path.parent.parent)


def _cannot_keep(folder: Path, error: OSError) -> RestoreError:
    return RestoreError(
        f"cannot work in {folder}: {error.strerror or error}",
        hint="free space there, or set `state` in the [restore] section to another folder",
    )
