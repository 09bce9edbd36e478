"""Settings of a live server that a handover needs otherwise, and how they come back.

Each old value is in the journal before it is changed. No secret of the user's is: where the server
has a `masterauth` already, the donor takes that as its password; where it has none, it gets one
that is made for this handover and empty again after it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from safetake.errors import SourceError
from safetake.model import RestoreWork
from safetake.sources.redis.wire import Connection, ServerRefusal

_NOTE = "settings"


@dataclass(frozen=True, slots=True)
class Login:
    """How the live server will log in to the donor."""

    username: str
    password: str
    ours: bool
    """The password is one that was made for this handover."""


def live_config(connection: Connection, name: str) -> str | None:
    """One setting; None where the server does not know it. Raises SourceError."""
    answer = connection.call("CONFIG", "GET", name)
    return None if len(answer) < 2 else bytes(answer[1]).decode("utf-8", "surrogateescape")


class Settings:
    """The settings of one live server during one restore."""

    def __init__(self, connection: Connection, work: RestoreWork) -> None:
        self._connection = connection
        self._work = work

    @property
    def _old(self) -> dict[str, str]:
        return dict(self._work.notes.get(_NOTE) or {})

    def login(self) -> Login:
        """What `masterauth` says, or a password of our own. Raises SourceError."""
        username = live_config(self._connection, "masteruser") or ""
        password = live_config(self._connection, "masterauth") or ""
        if password and "masterauth" not in self._old:
            return Login(username, password, ours=False)
        return Login(username, secrets.token_hex(24), ours=True)

    def apply(self, login: Login, *, same_host: bool) -> None:
        """Change what the handover needs. Raises SourceError."""
        wanted: dict[str, str] = {}
        if login.ours:
            wanted["masterauth"] = login.password
        if live_config(self._connection, "replica-read-only") == "no":
            wanted["replica-read-only"] = "yes"
        if live_config(self._connection, "repl-backlog-ttl") != "0":
            wanted["repl-backlog-ttl"] = "0"  # with its backlog it would forget the ids
        if same_host and live_config(self._connection, "tls-replication") == "yes":
            wanted["tls-replication"] = "no"
        old = self._old
        for name in wanted:
            if name not in old:
                old[name] = (
                    "" if name == "masterauth" else live_config(self._connection, name) or ""
                )
        if old != self._old:
            self._work.note(_NOTE, old)
        for name, value in wanted.items():
            self._set(name, value)

    def keep(self, name: str) -> str:
        """What it was before this restore; in the journal from now on. Raises SourceError."""
        old = self._old
        if name not in old:
            old[name] = live_config(self._connection, name) or ""
            self._work.note(_NOTE, old)
        return old[name]

    def restore(self) -> None:
        """As they were; idempotent. Raises SourceError."""
        for name, value in self._old.items():
            self._set(name, value)

    def _set(self, name: str, value: str) -> None:
        try:
            self._connection.call("CONFIG", "SET", name, value)
        except ServerRefusal as refusal:
            raise SourceError(
                f"{self._connection.address} does not let {name} be changed ({refusal.code})",
                hint="restore with a user who may use CONFIG SET and REPLICAOF",
            ) from None
