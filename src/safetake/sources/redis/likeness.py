"""Whether two RDB files hold the same data, though two servers wrote them.

Keys, types and expiries are compared always. Values are compared byte by byte where both files
store them alike; a server stores a small or an unordered value in more than one way, so that a
difference in form alone is looked into (`values.py`), and what cannot be looked into counts as
alike when key, type and expiry are.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetake.errors import DamagedError
from safetake.sources.redis.rdb import RdbFile, Record
from safetake.sources.redis.rdbformat import TYPE_NAMES
from safetake.sources.redis.values import MAX_VALUE, all_expired, content_digest

_Seen = dict[bytes, tuple[bytes, bytes]]


def same_content(one: Path, other: Path, now_ms: int) -> str:
    """What differs between two files, in a few words; empty when nothing does.

    Keys and fields that expire at or before `now_ms` are left out of both. Memory: about 150 bytes
    a key. Raises OSError.
    """
    try:
        first, second = _read(one, now_ms), _read(other, now_ms)
    except DamagedError as error:
        return str(error)
    if first.keys() != second.keys():
        lost, more = len(first.keys() - second.keys()), len(second.keys() - first.keys())
        return f"{lost} keys are missing or of another type or expiry, {more} should not be there"
    wrong = sum(
        1
        for name, (form, digest) in first.items()
        if second[name][0] == form and second[name][1] != digest
    )
    return f"{wrong} keys have another value" if wrong else ""


def _read(path: Path, now_ms: int) -> _Seen:
    """By key, type and expiry: the form of the value, and its digest."""
    found: _Seen = {}
    with RdbFile(path) as file:
        for record in file.records():
            if record.expire_ms is not None and record.expire_ms <= now_ms:
                continue
            value = _value(file, record, now_ms)
            if value is None:
                continue
            kind = TYPE_NAMES.get(record.type, str(record.type))
            name = f"{record.db} {record.expire_ms} {kind} ".encode() + record.key
            found[hashlib.blake2b(name, digest_size=16).digest()] = value
        if not file.check_crc():
            raise DamagedError(f"RDB: the CRC64 at the end of {path.name} is wrong")
    return found


def _value(file: RdbFile, record: Record, now_ms: int) -> tuple[bytes, bytes] | None:
    """Form and digest; None for a hash of which nothing is left."""
    if record.end - record.value <= MAX_VALUE:
        body = file.read(record.value, record.end)
        if all_expired(record.type, body, file.magic, now_ms):
            return None
        digest = content_digest(record.type, body, file.magic, now_ms)
        if digest is not None:
            return b"content", digest
    hasher = hashlib.blake2b(digest_size=16)
    for piece in file.value(record):
        hasher.update(piece)
    return b"%d" % record.type, hasher.digest()
