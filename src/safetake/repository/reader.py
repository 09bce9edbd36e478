"""Taking blobs back: one by one, or many in the order of their packs on all cores.

Every plaintext is proven before it is handed out: MAC first, then its hash. When a blob is stored
twice and one copy is damaged, the other is used. Memory of a stream: one read of at most 4 MiB and
its plaintext for each thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from safetake.errors import DamagedError
from safetake.model import BlobId, Node
from safetake.repository.codec import decompress
from safetake.repository.crypto import MasterKey, Sealer, Sealers
from safetake.repository.digests import BlobDigest, Digests
from safetake.repository.index import Index
from safetake.repository.pack import Entry
from safetake.repository.threads import run_in_threads
from safetake.repository.tree import decode_tree, tree_references
from safetake.storage import Storage

READ_BYTES = 4 << 20
"""Neighbouring blobs are fetched together up to this many bytes."""
_GAP_BYTES = 64 << 10
"""Unwanted bytes between two wanted blobs that are read rather than seeked over."""

Sink = Callable[[BlobId, bytes | bytearray], None]


def blob_name(pack: str, blob_id: bytes) -> str:
    """How errors name a blob: the file that holds it first."""
    return f"data/{pack[:2]}/{pack} (blob {blob_id.hex()[:12]})"


def open_blob(
    sealed: bytes | memoryview, entry: Entry, sealer: Sealer, digest: BlobDigest, what: str
) -> bytes | bytearray:
    """The proven plaintext of one sealed blob. Raises DamagedError naming `what`."""
    plain: bytes | bytearray = sealer.unseal(sealed, what)
    if entry.plain_length:
        plain = decompress(plain, entry.plain_length, what)
        if len(plain) != entry.plain_length:
            raise DamagedError(f"{what} is damaged: its length is not the one in the index")
    if not digest.fits(plain, entry.id):
        raise DamagedError(f"{what} is damaged: its content does not hash to its id")
    return plain


class RepositoryReader:
    """The `Reader` of model.py over a repository whose index is loaded."""

    def __init__(
        self,
        storage: Storage,
        key: MasterKey,
        index: Index,
        digests: Digests | None,
        renew: Callable[[Index], Index | None] | None = None,
    ) -> None:
        """`renew` gives the index of now, or None when it is still the same: readers hold no lock,
        and a prune may put what they read into another pack."""
        self._storage = storage
        self._key = key
        self._index = index
        self._digests = digests
        self._sealers = Sealers(key)
        self._local = threading.local()
        self._renew = renew
        self._renewing = threading.Lock()
        self.fetched_bytes = 0
        """Sealed bytes read so far; for `query`, which reports them."""

    def _digest(self) -> BlobDigest:
        digest: BlobDigest | None = getattr(self._local, "digest", None)
        if digest is None:
            digest = self._local.digest = BlobDigest(self._digests, self._key)
        return digest

    def _load(self, blob_id: BlobId, *, tree: bool) -> bytes | bytearray:
        error: DamagedError | None = None
        index, missing = self._index, True
        for pack, entry in index.locations(blob_id, tree):
            what = blob_name(pack, blob_id)
            try:
                sealed = self._storage.get_range("data", pack, entry.offset, entry.length)
                if len(sealed) != entry.length:
                    raise DamagedError(f"{what} is damaged: the pack is cut short")
                self.fetched_bytes += len(sealed)
                return open_blob(sealed, entry, self._sealers.get(), self._digest(), what)
            except FileNotFoundError:
                error = DamagedError(
                    f"{what} is missing", hint="run `safetake check` to see what else is"
                )
            except DamagedError as damage:
                error, missing = damage, False
        if missing and self._renewed(index):
            return self._load(blob_id, tree=tree)
        if error is not None:
            raise error
        kind = "tree" if tree else "data"
        raise DamagedError(
            f"{kind} blob {blob_id.hex()[:12]} is in no index",
            hint="run `safetake check` to see what else is missing",
        )

    def _renewed(self, seen: Index) -> bool:
        """Whether there is another index now than the one that was seen."""
        if self._renew is None:
            return False
        with self._renewing:
            if self._index is seen:
                self._index = self._renew(seen) or seen
            return self._index is not seen

    def blob(self, blob_id: BlobId) -> bytes:
        """Plaintext of one data blob."""
        return bytes(self._load(blob_id, tree=False))

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        """Plaintext lengths, from the index."""
        found = []
        for blob_id in ids:
            size = self._index.size(blob_id)
            if size is None:
                raise DamagedError(f"data blob {blob_id.hex()[:12]} is in no index")
            found.append(size)
        return found

    def tree(self, tree_id: BlobId) -> list[Node]:
        """Entries of a directory."""
        blob = bytes(self._load(tree_id, tree=True))
        return decode_tree(blob, f"tree {tree_id.hex()[:12]}")

    def tree_blob(self, tree_id: BlobId) -> bytes | bytearray:
        """The JSON of a directory, proven."""
        return self._load(tree_id, tree=True)

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        """(subtrees, data blobs) of a directory: a tenth of the work of `tree`."""
        return tree_references(self._load(tree_id, tree=True))

    def whole(self, tree_id: BlobId) -> bool:
        """Whether everything below a directory is in the index; what was found once is kept."""
        known, index = self._index.whole, self._index
        walked: dict[BlobId, None] = {}
        waiting = [tree_id]
        while waiting:
            tree = waiting.pop()
            if tree in known or tree in walked:
                continue
            subtrees, content = self.references(tree)
            if not all(index.has(blob_id, False) for blob_id in content):
                return False
            walked[tree] = None
            waiting += subtrees
        known.update(walked)
        return True

    def stream(
        self,
        ids: Iterable[BlobId],
        sink: Sink,
        *,
        threads: int | None = None,
        window: int | None = None,
        failed: Callable[[BlobId, DamagedError], None] | None = None,
    ) -> None:
        """Give every blob of `ids` to `sink` once, from several threads.

        The order is that of the packs: of all blobs, or of so many that they make up `window` bytes
        and then of the next ones, where what belongs together in `ids` shall come together.
        The ids must differ. A damaged blob is tried at its other places, then given to `failed`, or
        raised when there is none. What `sink` raises ends the stream and is raised here.
        """
        runs = self._runs(ids, window, failed)
        turn = threading.Lock()
        errors: list[BaseException] = []

        def work() -> None:
            while not errors:
                try:
                    with turn:
                        run = next(runs, None)
                    if run is None:
                        return
                    self._run(*run, sink, failed)
                except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                    errors.append(error)
                    return

        count = threads or min(8, max(2, os.cpu_count() or 2))
        if count > 1:
            run_in_threads(work, count, "read", errors)
            return
        work()
        if errors:
            raise errors[0]

    def _runs(
        self,
        ids: Iterable[BlobId],
        window: int | None,
        failed: Callable[[BlobId, DamagedError], None] | None,
    ) -> Iterator[tuple[str, list[Entry]]]:
        """(pack, blobs to be read at once), for all blobs or for one window after the other."""
        wanted: dict[str, list[Entry]] = {}
        gathered = 0
        for blob_id in ids:
            places = self._index.locations(blob_id, False)
            if not places:
                error = DamagedError(f"data blob {blob_id.hex()[:12]} is in no index")
                if failed is None:
                    raise error
                failed(blob_id, error)
                continue
            pack, entry = places[0]
            wanted.setdefault(pack, []).append(entry)
            gathered += entry.size
            if window is not None and gathered >= window:
                for pack, entries in wanted.items():
                    yield from ((pack, run) for run in _neighbours(entries))
                wanted, gathered = {}, 0
        for pack, entries in wanted.items():
            yield from ((pack, run) for run in _neighbours(entries))

    def _run(
        self,
        pack: str,
        run: list[Entry],
        sink: Sink,
        failed: Callable[[BlobId, DamagedError], None] | None,
    ) -> None:
        start = run[0].offset
        end = run[-1].offset + run[-1].length
        try:
            data = self._storage.get_range("data", pack, start, end - start)
        except (FileNotFoundError, DamagedError):  # then one by one: some of it may read
            data = b""
        view = memoryview(data)
        sealer, digest = self._sealers.get(), self._digest()
        for entry in run:
            at = entry.offset - start
            try:
                try:
                    plain = open_blob(
                        view[at : at + entry.length], entry, sealer, digest,
                        blob_name(pack, entry.id),
                    )  # fmt: skip
                except DamagedError:
                    plain = self._load(entry.id, tree=False)  # perhaps another copy is good
            except DamagedError as error:
                if failed is None:
                    raise
                failed(entry.id, error)
                continue
            sink(entry.id, plain)


def _neighbours(entries: list[Entry]) -> Iterable[list[Entry]]:
    entries.sort(key=lambda entry: entry.offset)
    run: list[Entry] = []
    start = end = 0
    for entry in entries:
        if run and (entry.offset + entry.length - start > READ_BYTES
                    or entry.offset - end > _GAP_BYTES):  # fmt: skip
            yield run
            run = []
        if not run:
            start = entry.offset
        run.append(entry)
        end = entry.offset + entry.length
    if run:
        yield run
