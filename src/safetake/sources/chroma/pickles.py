"""Reading index_metadata.pickle without trusting it.

A pickle can run any code when it is loaded as it is. This one may hold dicts, lists, tuples,
strings, numbers, None and, from Chroma 0.x, one named class that becomes an inert bag of fields;
any other name ends it. The address space is limited while it loads, since a few bytes can ask for
a memo of gigabytes: so load only in a process that does nothing else meanwhile.
"""

from __future__ import annotations

import io
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 2 << 30
_SPARE_BYTES = 256 << 20
_BYTES_PER_BYTE = 48
"""What one byte of an honest pickle becomes in memory, at the most (short ids in two dicts)."""
_PERSISTENT_DATA = ("chromadb.segment.impl.vector.local_persistent_hnsw", "PersistentData")


class BadPickleError(Exception):
    """The pickle is torn, or is not one that Chroma writes."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of a segment."""

    label_of: dict[str, int]
    id_of: dict[int, str]
    total: int
    """labels ever given: the count of header.bin"""
    dimension: int | None
    max_seq_id: int | None
    """only in pickles of Chroma 0.4 and 0.5; since then SQLite has it"""


class _Bag:
    """Stands for Chroma's PersistentData: takes the fields and does nothing."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise BadPickleError("the object's state is no dict")
        self.fields = state


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _PERSISTENT_DATA:
            return _Bag
        raise BadPickleError(f"it asks for {module}.{name}, which Chroma does not store")

    def persistent_load(self, pid: Any) -> Any:
        raise BadPickleError("it has a persistent id, which Chroma does not store")


def load_ids(path: Path) -> Ids:
    """The ids in a pickle file. Raises BadPickleError, OSError."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadPickleError(f"{size} bytes are more than any collection needs")
    with path.open("rb") as file:
        return _load(file, size)


def parse_ids(data: bytes) -> Ids:
    """The ids in the bytes of a pickle. Raises BadPickleError."""
    return _load(io.BytesIO(data), len(data))


def _load(file: Any, size: int) -> Ids:
    try:
        with _bounded_memory(_SPARE_BYTES + _BYTES_PER_BYTE * size):
            loaded = _Restricted(_NoBombs(file, size)).load()
        if file.read(1):
            raise BadPickleError("bytes follow its end")
    except BadPickleError:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ImportError,
        MemoryError,
        OverflowError,
        RecursionError,
    ) as error:
        raise BadPickleError(f"it does not load: {type(error).__name__}: {error}") from error
    fields = loaded.fields if isinstance(loaded, _Bag) and hasattr(loaded, "fields") else loaded
    if not isinstance(fields, dict):
        raise BadPickleError("it is no dict of fields")
    label_of, id_of = fields.get("id_to_label"), fields.get("label_to_id")
    total, dimension = fields.get("total_elements_added"), fields.get("dimensionality")
    if type(label_of) is not dict or type(id_of) is not dict or type(total) is not int:
        raise BadPickleError("id_to_label, label_to_id or total_elements_added is missing")
    if not all(type(key) is str and type(value) is int for key, value in label_of.items()):
        raise BadPickleError("id_to_label does not map strings to numbers")
    if len(label_of) != len(id_of) or any(id_of.get(v) != k for k, v in label_of.items()):
        raise BadPickleError("id_to_label and label_to_id are not each other's inverse")
    legacy = fields.get("max_seq_id")
    return Ids(
        label_of,
        id_of,
        total,
        dimension if type(dimension) is int else None,
        legacy if type(legacy) is int else None,
    )


@contextmanager
def _bounded_memory(more: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    for other in (soft, hard):
        if other != resource.RLIM_INFINITY:
            limit = min(limit, other)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _NoBombs:
    """A file for the unpickler that refuses to hand out more than is there.

    An opcode can announce a string of any length; asking the file for it would allocate it first.
    """

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, count: int) -> bytes:
        if count > self._size:
            raise BadPickleError(f"it announces {count} bytes in a file of {self._size}")
        data: bytes = self._file.read(count)
        return data

    def readline(self) -> bytes:
        line: bytes = self._file.readline(1 << 16)
        return line

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)
        return count
