"""From a password to the key that opens a key file: scrypt, which can be begun early.

scrypt takes 0.2 to 0.5 s, most of what is left of a run in which nothing changed, and needs
neither Python's lock nor anything but a key file: `begin` starts it while other things are
imported. libsodium's takes 0.6 of the time of OpenSSL's, and gives the same bytes. Parameters of
foreign files are bounded before they are used: a planted file must not cost gigabytes. Imports
nothing heavy.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

from safetake.errors import DamagedError

_MAX_MEMORY = 1 << 30

_Question = tuple[bytes, int, int, int, bytes]
_begun: dict[_Question, _Early] = {}


def parse_key(name: str, content: bytes) -> dict[str, Any]:
    """What a key file says, its salt and data decoded. Raises DamagedError naming it."""
    what = f"keys/{name}"
    if hashlib.sha256(content).hexdigest() != name:
        raise DamagedError(
            f"{what} is damaged: its content does not hash to its name",
            hint="remove it with `safetake key remove` if another key opens the repository",
        )
    try:
        data = json.loads(content)
        if not isinstance(data, dict):
            raise DamagedError(f"{what} is damaged: not a JSON object")
        for word in ("N", "r", "p"):
            if not isinstance(data[word], int) or data[word] < 1:
                raise DamagedError(f"{what} is damaged: {word} is not a positive number")
        for word in ("salt", "data"):
            data[word] = base64.b64decode(data[word], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{what} is damaged: not a key file") from error
    if data.get("kdf") != "scrypt":
        raise DamagedError(f"{what} uses the unknown key derivation {str(data.get('kdf'))[:20]!r}")
    n, r, p = data["N"], data["r"], data["p"]
    if n & (n - 1) or n < 2 or p > 64 or 128 * r * (n + p) > _MAX_MEMORY:
        raise DamagedError(f"{what} asks for scrypt N={n} r={r} p={p}, more than is accepted")
    return data


def derive(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    """64 bytes; those of `begin` when it was asked the same."""
    question = _question(password, n, r, p, salt)
    early = _begun.pop(question, None)
    return early.result() if early is not None else _scrypt(*question)


def begin(password: str, name: str, content: bytes) -> None:
    """Start to derive what the key file `content` asks for. Never fails: `derive` does."""
    try:
        data = parse_key(name, content)
    except DamagedError:
        return
    question = _question(password, data["N"], data["r"], data["p"], data["salt"])
    _begun[question] = _Early(question)


def _question(password: str, n: int, r: int, p: int, salt: bytes) -> _Question:
    return (password.encode("utf-8", "surrogateescape"), n, r, p, salt)


def _scrypt(password: bytes, n: int, r: int, p: int, salt: bytes) -> bytes:
    memory = 128 * r * (n + p + 2) + (1 << 20)
    return _implementation()(password, salt, n, r, p, memory)


def _implementation() -> Callable[[bytes, bytes, int, int, int, int], bytes]:
    try:
        from nacl.bindings import crypto_pwhash_scryptsalsa208sha256_ll as sodium
    except ImportError:  # no wheel for this platform
        return _openssl
    return lambda password, salt, n, r, p, memory: sodium(password, salt, n, r, p, 64, memory)


def _openssl(password: bytes, salt: bytes, n: int, r: int, p: int, memory: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=64)


class _Early:
    """A derivation in a thread of its own; a daemon, so that nobody waits for it in vain."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self._derived = b""
        scrypt = _implementation()  # imported here: a thread would wait for Python's lock
        password, n, r, p, salt = question
        memory = 128 * r * (n + p + 2) + (1 << 20)

        def run() -> None:
            self._derived = scrypt(password, salt, n, r, p, memory)

        self._thread = threading.Thread(target=run, name="scrypt", daemon=True)
        self._thread.start()

    def result(self) -> bytes:
        self._thread.join()
        return self._derived or _scrypt(*self._question)
