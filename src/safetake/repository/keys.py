"""Key files: the master key, sealed with a key that scrypt derives from a password.

Each file in `keys/` opens the same repository with its own password.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safetake.clock import go_time, now_ns
from safetake.errors import DamagedError, SafetakeError, WrongPasswordError
from safetake.repository.crypto import MasterKey, Sealer
from safetake.repository.kdf import derive, parse_key
from safetake.storage import Storage

SCRYPT_N = 1 << 15
SCRYPT_R = 8
SCRYPT_P = 5
"""32 MiB, and a quarter to half a second here: the order of restic's own calibration (500 ms)."""

_MAX_KEYS = 20


@dataclass(frozen=True)
class KeyInfo:
    """What a key file says in the clear."""

    id: str
    created: str
    username: str
    hostname: str
    kdf: str
    current: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For `key list --json` (restic's names)."""
        return {
            "current": self.current,
            "id": self.id,
            "userName": self.username,
            "hostName": self.hostname,
            "created": self.created,
            "kdf": self.kdf,
        }


def user_name() -> str:
    """The name of the user, for keys, locks and snapshots; empty when the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _derive(password: str, n: int, r: int, p: int, salt: bytes) -> MasterKey:
    return MasterKey.from_kdf(derive(password, n, r, p, salt))


def seal_key(master: MasterKey, password: str) -> bytes:
    """The content of a key file."""
    if not password:
        raise SafetakeError("an empty password is refused", hint="give a password")
    salt = os.urandom(64)
    plain = json.dumps(
        {
            "mac": {
                "k": base64.b64encode(master.mac_k).decode(),
                "r": base64.b64encode(master.mac_r).decode(),
            },
            "encrypt": base64.b64encode(master.encrypt).decode(),
        },
        separators=(",", ":"),
    ).encode()
    user = _derive(password, SCRYPT_N, SCRYPT_R, SCRYPT_P, salt)
    return json.dumps(
        {
            "created": go_time(now_ns()),
            "username": user_name(),
            "hostname": socket.gethostname(),
            "kdf": "scrypt",
            "N": SCRYPT_N,
            "r": SCRYPT_R,
            "p": SCRYPT_P,
            "salt": base64.b64encode(salt).decode(),
            "data": base64.b64encode(Sealer(user).seal(plain)).decode(),
        },
        separators=(",", ":"),
    ).encode()


def _unseal(name: str, data: dict[str, Any], password: str) -> MasterKey | None:
    """The master key, or None when the password is not this key's."""
    user = _derive(password, data["N"], data["r"], data["p"], data["salt"])
    try:
        plain = Sealer(user).unseal(data["data"], f"keys/{name}")
    except DamagedError:
        return None  # the file hashes to its name, so the password is another key's
    try:
        inner = json.loads(bytes(plain))
        return MasterKey(
            base64.b64decode(inner["encrypt"], validate=True),
            base64.b64decode(inner["mac"]["k"], validate=True),
            base64.b64decode(inner["mac"]["r"], validate=True),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"keys/{name} is damaged: no master key in it") from error


def find_key(storage: Storage, password: str) -> tuple[MasterKey, str]:
    """The master key and the name of the key file that the password opens.

    Tries at most 20 files (as restic does). Raises WrongPasswordError, or DamagedError when the
    only files there are were damaged.
    """
    names = sorted(name for name, _ in storage.list("keys"))
    damaged: DamagedError | None = None
    tried = 0
    for name in names:
        if tried >= _MAX_KEYS:
            break
        try:
            data = parse_key(name, storage.get("keys", name))
        except DamagedError as error:
            damaged = error
            continue
        except FileNotFoundError:
            continue  # removed since the listing
        tried += 1
        if (master := _unseal(name, data, password)) is not None:
            return master, name
    if damaged is not None:
        raise damaged
    if not names:
        raise DamagedError(
            f"the repository at {storage.location} has no key file",
            hint="bring a file of keys/ back from a copy: without one nothing can be decrypted",
        )
    raise WrongPasswordError(
        f"wrong password: no key of {storage.location} opens with it ({tried} tried)",
        hint="check password_file, password_env or password_command in the configuration; every "
        "password that was ever added opens it",
    )


class Keys:
    """The keys of an open repository."""

    def __init__(
        self, storage: Storage, master: MasterKey, current: str, exclusive: Callable[[], Any]
    ) -> None:
        self._storage = storage
        self._master = master
        self._exclusive = exclusive
        self.current = current

    def list(self) -> list[KeyInfo]:
        """All keys, the oldest first. Raises DamagedError naming a damaged file."""
        found = []
        for name, _ in self._storage.list("keys"):
            try:
                data = parse_key(name, self._storage.get("keys", name))
            except FileNotFoundError:
                continue  # removed since the listing
            found.append(
                KeyInfo(
                    name,
                    str(data.get("created", "")),
                    str(data.get("username", "")),
                    str(data.get("hostname", "")),
                    f"scrypt N={data['N']} r={data['r']} p={data['p']}",
                    name == self.current,
                )
            )
        return sorted(found, key=lambda key: (key.created, key.id))

    def add(self, password: str) -> str:
        """Add a key for a new password, prove that it opens, return its id."""
        content = seal_key(self._master, password)
        name = hashlib.sha256(content).hexdigest()
        self._storage.put("keys", name, content)
        if (
            _unseal(name, parse_key(name, self._storage.get("keys", name)), password)
            != self._master
        ):
            self._storage.remove("keys", name)
            raise DamagedError(f"keys/{name} did not read back as written")
        return name

    def remove(self, prefix: str) -> str:
        """Remove the key whose id starts with `prefix`; the current one is refused."""
        matches = [n for n, _ in self._storage.list("keys") if prefix and n.startswith(prefix)]
        if len(matches) != 1:
            what = "no key" if not matches else "more than one key"
            raise SafetakeError(
                f"{what} starts with {prefix!r}", hint="list them with `safetake key list`"
            )
        if matches[0] == self.current:
            raise SafetakeError(
                f"key {matches[0][:8]} is the one in use",
                hint="open the repository with another password to remove this key",
            )
        with self._exclusive():
            self._storage.remove("keys", matches[0])
        return matches[0]
