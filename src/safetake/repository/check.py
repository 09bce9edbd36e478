"""Is the repository whole? Every file that can be damaged is looked at, and each damage is named.

Without data: keys, config, indexes, snapshots, locks, proofs, evidence, history and digests open;
every tree of every snapshot decodes and every blob that it names is in an index; every pack of the
indexes is there and as long as its blobs need. With data: every pack's header agrees with the
index, its blobs fill it without a gap, and every blob decrypts to the content that its id names. A
pack's own name is not recomputed: each of its bytes is covered by an authentication code or by the
header's arithmetic.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.errors import DamagedError
from safetake.model import Progress
from safetake.repository.crypto import Sealer
from safetake.repository.digests import BlobDigest
from safetake.repository.documents import load_unpacked
from safetake.repository.index import Index
from safetake.repository.pack import Entry, decode_header, header_length
from safetake.repository.reader import READ_BYTES, RepositoryReader, blob_name, open_blob
from safetake.repository.threads import run_in_threads
from safetake.storage import Kind

if TYPE_CHECKING:
    from safetake.model import Node
    from safetake.repository.repository import Repository


@dataclass(slots=True)
class CheckReport:
    """What a check found."""

    read_data: bool
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Harmless: what an interrupted run left behind."""
    snapshots: int = 0
    packs: int = 0
    blobs: int = 0
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 when whole, else 1."""
        return 1 if self.errors else 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake check`."""
        return {
            "ok": not self.errors,
            "read_data": self.read_data,
            "errors": self.errors,
            "notes": self.notes,
            "snapshots": self.snapshots,
            "packs": self.packs,
            "blobs": self.blobs,
            "bytes_read": self.bytes_read,
            "seconds": round(self.seconds, 3),
        }


def check(
    repository: Repository,
    read_data: bool = False,
    progress: Progress | None = None,
    *,
    trust_digests: bool = True,
) -> CheckReport:
    """Check the whole repository. Damage is reported; raises StorageError and lock errors."""
    started = time.perf_counter()
    report = CheckReport(read_data)
    with repository.lock(exclusive=False):
        snapshots = sorted(name for name, _ in repository.storage.list("snapshots"))
        index = _index(repository, report)
        digests = repository.digests if trust_digests else None
        _small_files(repository, report)
        reader = RepositoryReader(repository.storage, repository.key, index, digests)
        packs = index.packs()
        report.packs, report.blobs = len(packs), len(index)
        _packs(repository, packs, report)
        _trees(repository, reader, index, snapshots, report, progress)
        if read_data:
            _data(repository, packs, report, progress, trust_digests)
    report.seconds = time.perf_counter() - started
    return report


def _index(repository: Repository, report: CheckReport) -> Index:
    index = Index()
    for name in repository.index_names():
        try:
            index.load(name, load_unpacked(repository.storage, repository.key, "index", name))
        except DamagedError as error:
            report.errors.append(str(error))
        except FileNotFoundError:
            continue
    index.freeze()
    return index


def _small_files(repository: Repository, report: CheckReport) -> None:
    try:
        repository.keys.list()
    except DamagedError as error:
        report.errors.append(str(error))
    try:
        for lock in repository.locks.list():
            if lock.stale():
                report.notes.append(f"locks/{lock.id} is stale: {lock}")
    except DamagedError as error:
        report.errors.append(str(error))
    kinds: tuple[Kind, ...] = ("proofs", "history", "evidence")
    for kind in kinds:
        for name, _ in repository.storage.list(kind):
            try:
                repository.load_document(kind, name)
            except DamagedError as error:
                report.errors.append(str(error))
            except FileNotFoundError:
                continue
    report.errors += [
        f"digests/{name} is damaged: remove it, it only makes things faster"
        for name in repository.digests.damaged
    ]


def _packs(repository: Repository, packs: dict[str, list[Entry]], report: CheckReport) -> None:
    sizes = dict(repository.storage.list("data"))
    for pack, entries in packs.items():
        size = sizes.pop(pack, None)
        what = f"data/{pack[:2]}/{pack}"
        if size is None:
            report.errors.append(f"{what} is missing")
            continue
        header = sum(41 if entry.plain_length else 37 for entry in _once(entries)) + 36
        if size != sum(entry.length for entry in _once(entries)) + header:
            report.errors.append(f"{what} is damaged: {size} bytes long, not what its blobs need")
    if sizes:
        report.notes.append(
            f"{len(sizes)} packs ({sum(sizes.values())} bytes) are in no index: left by an "
            "interrupted run, harmless"
        )


def _once(entries: list[Entry]) -> list[Entry]:
    """Entries without repetitions: one pack may be described by two indexes."""
    return list({(entry.offset, entry.id): entry for entry in entries}.values())


def _trees(
    repository: Repository,
    reader: RepositoryReader,
    index: Index,
    snapshots: list[str],
    report: CheckReport,
    progress: Progress | None,
) -> None:
    seen: set[bytes] = set()
    for number, name in enumerate(snapshots, 1):
        try:
            document = repository.load_document("snapshots", name)
            root = bytes.fromhex(document["tree"])
        except FileNotFoundError:
            continue
        except DamagedError as error:
            report.errors.append(str(error))
            continue
        except (KeyError, TypeError, ValueError):
            report.errors.append(f"snapshots/{name} is damaged: it has no tree")
            continue
        report.snapshots += 1
        waiting = [(root, "")]
        while waiting:
            tree, path = waiting.pop()
            if tree in seen:
                continue
            seen.add(tree)
            try:
                nodes = reader.tree(tree)
            except DamagedError as error:
                report.errors.append(f"snapshot {name[:8]}, folder {path or '/'}: {error}")
                continue
            for node in nodes:
                place = f"{path}/{node.name}"
                if node.subtree is not None:
                    waiting.append((node.subtree, place))
                _content(node, place, name, index, report)
        if progress is not None:
            progress("snapshots", number, len(snapshots))


def _content(node: Node, place: str, snapshot: str, index: Index, report: CheckReport) -> None:
    size = 0
    for blob_id in node.content or ():
        length = index.size(blob_id)
        if length is None:
            report.errors.append(
                f"snapshot {snapshot[:8]}, file {place!a}: blob {blob_id.hex()[:12]} is in no index"
            )
            return
        size += length
    if node.type == "file" and size != node.size:
        report.errors.append(
            f"snapshot {snapshot[:8]}, file {place!a}: its blobs have {size} bytes, not {node.size}"
        )


def _data(
    repository: Repository,
    packs: dict[str, list[Entry]],
    report: CheckReport,
    progress: Progress | None,
    trust_digests: bool,
) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    there = {pack for pack, _ in repository.storage.list("data")}
    for pack in sorted(there.intersection(packs)):  # what is missing was told already
        waiting.put(pack)
    total = sum(entry.length for entries in packs.values() for entry in _once(entries))
    lock = threading.Lock()
    broken: list[BaseException] = []

    def work() -> None:
        sealer = Sealer(repository.key)
        digest = BlobDigest(repository.digests if trust_digests else None, repository.key)
        while not broken:
            try:
                pack = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                problems, read = _pack(repository, pack, _once(packs[pack]), sealer, digest)
            except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                broken.append(error)  # a thread that only died would leave packs unread in silence
                return
            with lock:
                report.errors += problems
                report.bytes_read += read
                if progress is not None:
                    progress("packs", report.bytes_read, total)

    count = min(8, max(2, os.cpu_count() or 2))
    run_in_threads(work, count, "check", broken)


def _pack(
    repository: Repository, pack: str, entries: list[Entry], sealer: Sealer, digest: BlobDigest
) -> tuple[list[str], int]:
    what = f"data/{pack[:2]}/{pack}"
    storage = repository.storage
    problems: list[str] = []
    read = 0
    try:
        size = storage.size("data", pack)
        tail = storage.get_range("data", pack, max(0, size - 4), 4)
        length = header_length(tail, size, what)
        sealed = storage.get_range("data", pack, size - 4 - length, length)
        header = decode_header(sealed, size, sealer, what)
        if sorted(header, key=_place) != sorted(entries, key=_place):
            problems.append(f"{what} is damaged: its header and the index disagree")
    except FileNotFoundError:
        return [f"{what} is missing"], 0
    except DamagedError as error:
        problems.append(str(error))
        header = entries
    header.sort(key=_place)
    at = 0
    while at < len(header):
        start = header[at].offset
        stop = at + 1  # at least one; then all that fit one read
        while stop < len(header) and _end(header[stop]) - start <= READ_BYTES:
            stop += 1
        end = _end(header[stop - 1])
        data = memoryview(b"")
        try:
            data = memoryview(storage.get_range("data", pack, start, end - start))
        except FileNotFoundError:
            return [*problems, f"{what} is missing"], read
        except DamagedError as error:
            problems.append(str(error))
        read += len(data)
        for entry in header[at:stop]:
            sealed_blob = data[entry.offset - start : entry.offset - start + entry.length]
            try:
                open_blob(sealed_blob, entry, sealer, digest, blob_name(pack, entry.id))
            except DamagedError as error:
                problems.append(str(error))
        at = stop
    return problems, read


def _place(entry: Entry) -> tuple[int, bytes]:
    return entry.offset, entry.id


def _end(entry: Entry) -> int:
    return entry.offset + entry.length
