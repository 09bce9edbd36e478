"""Files with holes: whole blocks of zeros are not written, and take no room.

A snapshot does not say where a file had holes, and room that was reserved with zeros is not told
from one. So a restore leaves holes only where that is asked for.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safetake.model import BlobId
    from safetake.repository.reader import RepositoryReader

BLOCK = 4096
"""What file systems allocate at least, nearly all of them."""
_ZEROS = bytes(BLOCK)


def write_sparse(fd: int, data: bytes | bytearray, at: int) -> None:
    """Write, but leave out aligned blocks of zeros; the file is as long as it has to be, and reads
    as zeros there, already. Raises OSError.
    """
    if _ZEROS not in data:
        write_all(fd, data, at)
        return
    begin, end = 0, 0
    while end < len(data):
        block = BLOCK - (at + end) % BLOCK
        if len(data) - end >= block == BLOCK and data[end : end + BLOCK] == _ZEROS:
            write_all(fd, memoryview(data)[begin:end], at + begin)
            begin = end + BLOCK
        end += block
    write_all(fd, memoryview(data)[begin:], at + begin)


def write_all(fd: int, data: bytes | bytearray | memoryview, at: int) -> None:
    """Every byte at its place. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view = view[written:]
        at += written


def zeros(reader: RepositoryReader, content: list[BlobId]) -> int:
    """Bytes of a file that are surely holes, known without reading: a long run of zeros is the same
    blob again and again, and its name is a hash.
    """
    again = {one for one, other in pairwise(content) if one == other}
    found = at = 0
    for blob_id, size in zip(content, reader.sizes(content), strict=True):
        if blob_id in again and blob_id == _id_of_zeros(size):
            found += max(0, (at + size) // BLOCK * BLOCK - -(-at // BLOCK) * BLOCK)
        at += size
    return found


@lru_cache(maxsize=64)
def _id_of_zeros(size: int) -> bytes:
    return hashlib.sha256(bytes(size)).digest()
