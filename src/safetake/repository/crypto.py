"""Sealing: AES-256-CTR with a Poly1305-AES authenticator, as restic's design document has it.

Sealed = IV (16 random bytes) ‖ ciphertext ‖ MAC (16). The one-time Poly1305 key is r ‖
AES-128_k(IV); OpenSSL clamps r itself. Nothing is ever decrypted before its MAC was checked in
constant time. A `Sealer` keeps its OpenSSL contexts and is for one thread; `MasterKey` is shared.
"""

from __future__ import annotations

import hmac
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from safetake.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

OVERHEAD = 32
"""Bytes that sealing adds."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class MasterKey:
    """The three secrets of a repository; never printed."""

    encrypt: bytes = field(repr=False)
    mac_k: bytes = field(repr=False)
    mac_r: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if (len(self.encrypt), len(self.mac_k), len(self.mac_r)) != (32, 16, 16):
            raise DamagedError("a key has the wrong length")

    @staticmethod
    def generate() -> MasterKey:
        """A fresh random key."""
        return MasterKey(os.urandom(32), os.urandom(16), os.urandom(16))

    @staticmethod
    def from_kdf(derived: bytes) -> MasterKey:
        """The user key in 64 bytes of scrypt output: encrypt ‖ mac.k ‖ mac.r."""
        return MasterKey(derived[:32], derived[32:48], derived[48:64])

    def subkey(self, purpose: bytes) -> MasterKey:
        """A key of its own for what is sealed outside of the repository; at most 15 bytes."""
        return MasterKey.from_kdf(self.derive(purpose + b"1") + self.derive(purpose + b"2"))

    def derive(self, purpose: bytes) -> bytes:
        """32 bytes for another primitive, bound to the purpose (keyed BLAKE2b)."""
        import hashlib

        return hashlib.blake2b(
            self.mac_k + self.mac_r, key=self.encrypt, digest_size=32, person=purpose[:16]
        ).digest()


class Sealer:
    """Seals and unseals with one key, in one thread."""

    def __init__(self, key: MasterKey) -> None:
        zero = bytes(16)
        self._r = key.mac_r
        # CTR is its own inverse: one context serves both ways and is re-armed for each IV.
        self._ctr = Cipher(algorithms.AES(key.encrypt), modes.CTR(zero)).encryptor()
        self._ecb = Cipher(algorithms.AES(key.mac_k), modes.ECB()).encryptor()

    def seal(self, plain: Buffer) -> bytearray:
        """IV ‖ ciphertext ‖ MAC."""
        return self.seal_all([plain])[0]

    def seal_all(self, plains: Sequence[Buffer]) -> list[bytearray]:
        """Seal several at once: one call for all IVs and one for all nonces."""
        ivs = os.urandom(16 * len(plains))
        nonces = self._ecb.update(ivs)
        sealed = []
        for number, plain in enumerate(plains):
            at = number * 16
            iv = ivs[at : at + 16]
            length = len(plain)
            out = bytearray(length + OVERHEAD)
            out[:16] = iv
            view = memoryview(out)
            if length:
                self._ctr.reset_nonce(iv)
                self._ctr.update_into(plain, view[16 : 16 + length])
            mac = Poly1305(self._r + nonces[at : at + 16])
            mac.update(view[16 : 16 + length])
            view[16 + length :] = mac.finalize()
            sealed.append(out)
        return sealed

    def unseal(self, sealed: Buffer, what: str) -> bytearray:
        """The plaintext. Raises DamagedError naming `what` when the MAC does not fit."""
        length = len(sealed) - OVERHEAD
        if length < 0:
            raise DamagedError(f"{what} is too short to be sealed data ({len(sealed)} bytes)")
        view = memoryview(sealed)
        iv = bytes(view[:16])
        mac = Poly1305(self._r + self._ecb.update(iv))
        mac.update(view[16 : 16 + length])
        if not hmac.compare_digest(mac.finalize(), bytes(view[16 + length :])):
            raise DamagedError(
                f"{what} is damaged: its authentication code does not fit",
                hint="run `safetake check --read-data` to see how much is damaged",
            )
        plain = bytearray(length)
        if length:
            self._ctr.reset_nonce(iv)
            self._ctr.update_into(view[16 : 16 + length], plain)
        return plain


class Sealers:
    """One `Sealer` for each thread."""

    def __init__(self, key: MasterKey) -> None:
        self._key = key
        self._local = threading.local()

    def get(self) -> Sealer:
        """This thread's sealer."""
        sealer: Sealer | None = getattr(self._local, "sealer", None)
        if sealer is None:
            sealer = self._local.sealer = Sealer(self._key)
        return sealer
