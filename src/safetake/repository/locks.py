"""Locks in the format's protocol, so that safetake and stock restic keep out of each other's way.

Check, write, check again: on a storage with consistent listing at least one of two rivals sees the
other. A lock is refreshed every 5 minutes by writing a new file and removing the old one; it is
stale after 30 minutes, or at once when its process on the same host is gone. Stale locks are
removed by whoever locks next: a crashed run never wedges the next one (one project's retention
stood still for 52 days behind such a lock).

Who has to wait does so for a bounded time. Who wants to be alone says so for some seconds at a
time, so that one backup after the other cannot keep it out for ever, and lets others in between,
so that nobody stands still behind a long backup. A lock that others took for stale (its host slept)
is noticed: `assure` is called before anything is committed or removed under it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from safetake.clock import go_time, now_ns, parse_go_time
from safetake.errors import DamagedError, RepositoryLockedError, StorageError
from safetake.repository.codec import decode_unpacked, encode_unpacked
from safetake.repository.crypto import MasterKey, Sealer
from safetake.repository.keys import user_name
from safetake.storage import Storage
from safetake.storage.local import process_exists

REFRESH_S = 300.0
STALE_NS = 30 * 60 * 10**9
SAFE_NS = 25 * 60 * 10**9
"""A lock that was not refreshed for so long is not relied upon any more."""
ALONE_S = 10.0
"""So long at a time does who wants to be alone keep new ones out while the present ones end."""
REST_S = 30.0
"""And lets them come and go for so long before it tries that again."""
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_OWN: set[str] = set()
"""Names of the locks that this process wrote."""


@dataclass(frozen=True)
class LockInfo:
    """What a lock file says."""

    id: str
    time_ns: int
    exclusive: bool
    hostname: str
    username: str
    pid: int

    def stale(self) -> bool:
        """Older than 30 minutes, or its process on this host is gone."""
        if now_ns() - self.time_ns > STALE_NS:
            return True
        if self.hostname != socket.gethostname():
            return False
        # a restarted container has its host name and pid again
        return not process_exists(self.pid) or (self.pid == os.getpid() and self.id not in _OWN)

    def as_dict(self) -> dict[str, Any]:
        """For `unlock --json`."""
        return {
            "id": self.id,
            "time": go_time(self.time_ns),
            "exclusive": self.exclusive,
            "hostname": self.hostname,
            "username": self.username,
            "pid": self.pid,
            "stale": self.stale(),
        }

    def __str__(self) -> str:
        kind = "exclusive lock" if self.exclusive else "lock"
        age = max(0, now_ns() - self.time_ns) // 10**9
        who = f"{self.username}@{self.hostname}" if self.username else self.hostname
        return f"{kind} {self.id[:8]} of process {self.pid} ({who}), refreshed {age} s ago"


class Locks:
    """The locks of an open repository."""

    def __init__(self, storage: Storage, key: MasterKey) -> None:
        self._storage = storage
        self._key = key
        self._keepers: list[_Keeper] = []

    def list(self) -> list[LockInfo]:
        """All locks. Raises DamagedError for one that cannot be read."""
        sealer = Sealer(self._key)
        found = []
        for name, _ in self._storage.list("locks"):
            what = f"locks/{name}"
            try:
                sealed = self._storage.get("locks", name)
            except FileNotFoundError:
                continue  # released since the listing
            if not sealed:
                continue  # restic tolerates empty lock files of interrupted uploads, so do we
            if hashlib.sha256(sealed).hexdigest() != name:
                raise DamagedError(
                    f"{what} is damaged: its content does not hash to its name",
                    hint="when nothing else uses the repository: `safetake unlock --all`",
                )
            plain = decode_unpacked(sealer.unseal(sealed, what), what)
            try:
                document = json.loads(plain)
                found.append(
                    LockInfo(
                        name,
                        parse_go_time(document["time"]),
                        bool(document["exclusive"]),
                        str(document.get("hostname", "")),
                        str(document.get("username", "")),
                        int(document.get("pid", 0)),
                    )
                )
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise DamagedError(
                    f"{what} is damaged: not a lock",
                    hint="when nothing else uses the repository: `safetake unlock --all`",
                ) from error
        return found

    def _write(self, exclusive: bool) -> str:
        document = {
            "time": go_time(now_ns()),
            "exclusive": exclusive,
            "hostname": socket.gethostname(),
            "username": user_name(),
            "pid": os.getpid(),
            "uid": os.getuid(),
            "gid": os.getgid(),
        }
        plain = json.dumps(document, separators=(",", ":")).encode()
        sealed = bytes(Sealer(self._key).seal(encode_unpacked(plain)))
        name = hashlib.sha256(sealed).hexdigest()
        _OWN.add(name)
        try:
            self._storage.put("locks", name, sealed)
        except BaseException:  # Ctrl-C, too: it may be visible already, while its folder is synced
            with contextlib.suppress(StorageError):
                self._storage.remove("locks", name)
            raise
        return name

    def _conflict(self, exclusive: bool, own: str) -> LockInfo | None:
        """A live lock that is in the way."""
        found: LockInfo | None = None
        for lock in self.list():
            if lock.id == own:
                continue
            if lock.stale():  # also one that is not in our way: it is in the way of `restic prune`
                self._storage.remove("locks", lock.id)
                continue
            if lock.exclusive or (exclusive and found is None):
                found = lock
        return found

    def _locked(self, lock: LockInfo, waited: float) -> RepositoryLockedError:
        after = f" after {waited:.0f} s of waiting" if waited else ""
        return RepositoryLockedError(
            f"the repository at {self._storage.location} is locked{after}: {lock}",
            hint="wait for it; if that process is really gone: `safetake unlock --all`",
        )

    @contextlib.contextmanager
    def hold(self, *, exclusive: bool, wait: float = 0.0) -> Iterator[None]:
        """Hold a lock.

        Raises RepositoryLockedError when a live lock is still in the way after `wait` seconds.
        """
        with _deaf_to_hangup():
            name = self._acquire(exclusive, wait)
            keeper = _Keeper(self, self._storage, name, exclusive)
            self._keepers.append(keeper)
            try:
                keeper.start()
                yield
            finally:
                self._keepers.remove(keeper)
                keeper.stop()

    def alone(self) -> bool:
        """Whether this thread holds an exclusive lock already."""
        return any(keeper.own_and_exclusive() for keeper in list(self._keepers))

    def assure(self) -> None:
        """Make sure that nobody took the locks held here for stale, or removed them.

        Raises RepositoryLockedError; what was known of the repository may not be true any more.
        """
        for keeper in list(self._keepers):
            if not keeper.holds():
                raise RepositoryLockedError(
                    f"the lock of the repository at {self._storage.location} was lost: this "
                    "process stood still for long, or somebody removed the lock",
                    hint="run the command again",
                )

    def _acquire(self, exclusive: bool, wait: float) -> str:
        """Write a lock that nothing is in the way of; returns its name."""
        began = time.monotonic()
        pause, claim_at = _PAUSE_S, began
        while True:
            conflict = self._conflict(exclusive, "")
            now = time.monotonic()
            left = began + wait - now
            # others that share are waited for behind our lock, as if it were held already
            patience = min(left, ALONE_S) if exclusive and now >= claim_at else 0.0
            if conflict is None or (not conflict.exclusive and patience > 0):
                name, conflict = self._try(exclusive, patience)
                if conflict is None:
                    return name
                if not conflict.exclusive:
                    claim_at = time.monotonic() + REST_S
            left = began + wait - time.monotonic()
            if left <= 0:
                raise self._locked(conflict, wait)
            # at random: two that want to be alone must not meet again
            time.sleep(min(left, pause * (0.5 + random.random())))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _try(self, exclusive: bool, patience: float) -> tuple[str, LockInfo | None]:
        """Write a lock and look again, for `patience` seconds; it stays when nothing is in the
        way."""
        until = time.monotonic() + patience
        name = self._write(exclusive)
        kept = False
        try:
            while (conflict := self._conflict(exclusive, name)) is not None:
                if conflict.exclusive or time.monotonic() >= until:
                    return name, conflict
                time.sleep(_PAUSE_S)
            kept = True
            return name, None
        finally:
            if not kept:
                self._storage.remove("locks", name)

    def remove(self, *, all_locks: bool) -> Sequence[LockInfo]:
        """Remove stale locks, or all; returns those removed."""
        removed = []
        if all_locks:
            names = [name for name, _ in self._storage.list("locks")]
            known: dict[str, LockInfo] = {}
            with contextlib.suppress(DamagedError):  # a damaged lock goes, too
                known = {lock.id: lock for lock in self.list()}
            for name in names:
                self._storage.remove("locks", name)
                removed.append(known.get(name) or LockInfo(name, 0, False, "?", "?", 0))
            return removed
        for lock in self.list():
            if lock.stale():
                self._storage.remove("locks", lock.id)
                removed.append(lock)
        return removed


@contextlib.contextmanager
def _deaf_to_hangup() -> Iterator[None]:
    """Survive SIGHUP while a lock is held: it is how stock restic asks whether the holder lives.

    `restic unlock` on the same host would end a running backup otherwise. Only the main thread can
    set this; a daemon that locks from another thread has to be deaf by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if before is None else before)


class _Keeper:
    """Refreshes a held lock in a thread, and removes it at the end."""

    def __init__(self, locks: Locks, storage: Storage, name: str, exclusive: bool) -> None:
        self._locks = locks
        self._storage = storage
        self._name = name
        self._exclusive = exclusive
        self._owner = threading.get_ident()
        self._fresh_ns = now_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lock-refresh", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def own_and_exclusive(self) -> bool:
        """Whether this thread is alone under it."""
        return self._exclusive and self._owner == threading.get_ident()

    def holds(self) -> bool:
        """Whether the lock is there, and no other process can have taken it for stale."""
        # the wall clock, as others read it: it goes on while a machine sleeps
        if not -SAFE_NS < now_ns() - self._fresh_ns < SAFE_NS:
            return False
        name = self._name
        try:
            self._storage.size("locks", name)
        except FileNotFoundError:
            return name != self._name  # refreshed between the two lines
        return True

    def _run(self) -> None:
        while not self._stop.wait(REFRESH_S):
            try:
                if not self.holds():
                    return  # a new one would hide that others worked meanwhile
                begun = now_ns()
                fresh = self._locks._write(self._exclusive)
                old, self._name, self._fresh_ns = self._name, fresh, begun
                self._storage.remove("locks", old)
            except StorageError:
                continue  # tried again in five minutes; 30 pass before others call it stale

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._storage.remove("locks", self._name)
