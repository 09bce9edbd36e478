"""The words that the rooms share: blobs, nodes, and the contracts between sources and repository.

Nothing here does any work. A source never sees a repository, only a `Writer` to hand bytes to and a
`Reader` to take them back from; the repository never sees a source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

BlobId = bytes
"""SHA-256 of a blob's plaintext, 32 raw bytes."""

BATCH_BYTES = 1 << 20
"""Length of the buffers that a `Writer` hands out."""

MAX_BLOB_BYTES = 8 << 20
"""Largest blob that the format allows."""


@dataclass(slots=True)
class Node:
    """One entry of a tree, as restic's format has it.

    `name` is the raw file name as `os.fsdecode` gives it (surrogates stand for bytes that are no
    UTF-8). Times are integer nanoseconds since the epoch. `mode` is the full `st_mode` as of
    `os.lstat`; the encoder turns it into Go's bits. `content` is None for what is not a file.
    """

    name: str
    type: str
    """file, dir, symlink, dev, chardev, fifo or socket"""
    mode: int = 0o600
    mtime_ns: int = 0
    atime_ns: int = 0
    ctime_ns: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    device: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    content: list[BlobId] | None = None
    subtree: BlobId | None = None


class Pending(Protocol):
    """Ids that are being worked out by the writer's threads."""

    def result(self) -> list[BlobId]:
        """The ids, in the order of the chunks; waits. Raises what the work raised."""


class Writer(Protocol):
    """Where a source hands its bytes. Safe to use from several threads.

    Each chunk becomes one blob (1 byte to MAX_BLOB_BYTES); the cut is the source's choice, and
    equal chunks are stored once. An empty file is a file node with `content=[]`.
    """

    def buffer(self) -> bytearray:
        """A reusable buffer of exactly BATCH_BYTES; blocks while the whole bounded pool is in use.

        Hand it back with `submit` or `discard`. One thread holds at most two at a time.
        Never call this inside a barrier: it may wait for compression.
        """

    def discard(self, buffer: bytearray) -> None:
        """Give an unused buffer back."""

    def submit(self, buffer: bytearray, sizes: Sequence[int]) -> Pending:
        """Store consecutive chunks of `buffer`, starting at 0; sum(sizes) <= BATCH_BYTES.

        The buffer belongs to the writer from here on.
        """

    def store(self, data: bytes) -> Pending:
        """Store one blob that the caller holds already; may block for back-pressure."""

    def save_tree(self, nodes: Iterable[Node]) -> BlobId:
        """Store a directory (sorted by the writer; duplicate names are an error)."""

    def has(self, ids: Iterable[BlobId]) -> bool:
        """Whether every data blob is in the repository already (to reuse a parent's content)."""

    def whole(self, tree_id: BlobId) -> bool:
        """Whether a directory and all below it are in the repository: it can be taken over as it
        is.

        Costs a walk through its directories, or nothing when the answer is known from before.
        Raises DamagedError when one of them cannot be read.
        """


class Reader(Protocol):
    """Where stored bytes are taken back. Safe to use from several threads."""

    def blob(self, blob_id: BlobId) -> bytes:
        """Plaintext of one data blob, its hash checked. Raises DamagedError."""

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        """Plaintext lengths, from the index, without reading any blob. Raises DamagedError."""

    def tree(self, tree_id: BlobId) -> list[Node]:
        """Entries of a directory, sorted by name. Raises DamagedError."""

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        """(subtrees, data blobs) that a directory names, without decoding its entries.

        Raises DamagedError.
        """


@dataclass(slots=True)
class Parent:
    """The same source in the snapshot before: what an increment is measured against."""

    entry: Mapping[str, Any]
    """Its manifest entry as `Captured.entry()` gave it."""
    node: Node
    """Its directory in that snapshot."""
    reader: Reader


@dataclass(slots=True)
class Captured:
    """One source in a snapshot.

    `facts` is what proves a restore; JSON-able, and compared by the source's own questions.
    `fingerprint` is what lets the next run see that nothing changed; JSON-able, private to the
    source. `one_moment` is False for the marked fallbacks (SCAN/DUMP, REST) that are not a cut.
    `unread` names what could not be read or was not certain: any entry makes the backup exit 3.
    """

    node: Node
    """Directory node whose name is the source's name and whose subtree is its content."""
    bytes: int
    facts: dict[str, Any]
    fingerprint: dict[str, Any] = field(default_factory=dict)
    one_moment: bool = True
    method: str = ""
    """How it was captured, in a few words, for people."""
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Cut:
    """What a session fixed inside the barrier. Times are `time.monotonic_ns()`."""

    held_ns: int
    """From here on no writer of this store could commit."""
    fixed_ns: int
    """The store's content is the one of this instant (equal to any instant of the hold)."""


@dataclass(slots=True)
class SourceState:
    """What `inspect` found, for status and doctor."""

    ok: bool
    summary: str
    bytes: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(what is wrong, hint)"""


@dataclass(slots=True)
class Check:
    """One question put to a restored copy, with what was expected and what was found."""

    name: str
    ok: bool
    expected: Any = None
    found: Any = None
    detail: str = ""


Progress = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all or 0 when unknown); called from any thread, often."""
Wanted = Callable[[str, bool, bool], bool | None]
"""Whether an entry of a source is wanted; None: neither it nor anything below it. Asked with its
path in the source, whether it is a folder, and whether the folder that it is in is wanted."""


@dataclass(slots=True)
class CaptureContext:
    """What a backup gives to each source."""

    writer: Writer
    parent: Parent | None
    scratch: Path
    """An empty private folder (0700) for this source, removed after the run."""
    progress: Progress = lambda what, done, total: None
    reader: Reader | None = None
    """Reads back blobs that this run has written already."""
    eager: bool = False
    """Writers will be kept out from the cut until all is stored: what can be stored in `prepare` is
    stored there, even where it will be read again."""


class Session(Protocol):
    """One capture of one source. `close` is always called, also after a failure."""

    def prepare(self) -> None:
        """Bulk copy with no locks held. Raises SourceError."""

    def hold(self, timeout: float) -> Cut:
        """Enter the barrier: when it returns, no writer can commit and the cut is fixed.

        All work that needs the held store is done here and is as small as can be. On any error
        (BarrierTimeoutError after `timeout` seconds of waiting for other writers) nothing is held.
        Can be called again after `release`: the cut is then the newer one.
        """

    def release(self) -> None:
        """Let the writers go. Never raises, idempotent."""

    def capture(self) -> Captured:
        """After the barrier: store what is left, return the directory and the facts of the cut."""

    def close(self) -> None:
        """Drop every connection, lock and temporary file. Idempotent."""


class Source(Protocol):
    """One store that is protected. Built from its configuration; constructing touches nothing."""

    name: str
    type: str

    @property
    def hold_rank(self) -> int:
        """Lower is held earlier: stores with more work inside the hold come first (chroma 10,
        sqlite 20 (rollback journal) or 30 (WAL), redis 40, files 50)."""

    def inspect(self) -> SourceState:
        """Look at the live store without changing it; problems are in the state, not raised."""

    def session(self, context: CaptureContext) -> Session:
        """Start a capture."""


class Opener(Protocol):
    """Proof: a restored copy, opened in isolation and questioned. Runs in a subprocess."""

    def __call__(self, staged: Path, entry: Mapping[str, Any]) -> list[Check]:
        """Question the copy in `staged` (private, may be modified) against the manifest `entry`.

        A check that could not be asked is a Check with ok=False, never left out silently; an
        optional check whose tool is absent (chromadb, a Redis server) is reported as a Check named
        "… (not asked: reason)" with ok=True and found="not asked".
        """


# ------------------------------------------------------------------------ restores in place


@dataclass(slots=True)
class Loss:
    """What is different between the live store and the snapshot, for the plan of a restore."""

    what: str
    """In a few words: `rows of episodes`, `vectors of scripts`, `keys of database 0`, `files`."""
    newer: int = 0
    """There now and not in the snapshot: lost by the restore."""
    changed: int = 0
    """In both, and different: goes back to what the snapshot has."""
    missing: int = 0
    """In the snapshot and not there now: comes back."""
    examples: list[str] = field(default_factory=list)
    """Some of the newer ones by name or key, at most 10."""
    unknown: str = ""
    """Why the numbers could not be worked out; they are then 0 and mean nothing."""


@dataclass(slots=True)
class RestoreOutline:
    """What a restorer found before anything is changed."""

    mode: str
    """`offline`: the live store must not be in use. `online`: applications stay connected.
    `beside`: new data under a new name, then a service's setting is switched to it."""
    target: str
    """The live store, for people."""
    space: dict[Path, int]
    """Bytes that are needed for a while, by a folder on the file system that gives them."""
    losses: list[Loss] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bytes: int | None = None
    """What is staged, where that is not all of the source."""
    absent: bool = False
    """There is no live store at all: nothing to save first."""
    damaged: str = ""
    """Why the live store can not be captured as what it is (then its raw files are saved)."""


@dataclass(slots=True)
class RestoreWork:
    """One source of one restore in place. After a crash it is made again from the journal, so
    whatever a restorer must know then is in `notes` or on disk in `work`.
    """

    id: str
    """Of the restore: 16 hexadecimal digits."""
    entry: Mapping[str, Any]
    """The source's entry in the snapshot's manifest (`facts`, `bytes`, `type` …)."""
    mode: str
    work: Path
    """A private folder (0700) on the live store's file system; the engine makes and removes it.
    Its name begins with `.safetake-restore-`. `new/NAME` is the engine's; the rest is free."""
    staged: Path
    """`work/new/NAME`: the snapshot's tree of this source, complete and durable."""
    options: Mapping[str, Any]
    """What the user chose for this source (`delete_extra`, …)."""
    notes: dict[str, Any]
    """What `note` recorded so far, also before a crash."""
    note: Callable[[str, Any], None]
    """Record a JSON-able fact durably in the journal before acting on it."""
    safety_ns: int = 0
    """Wall clock of the safety snapshot's cut; 0 before it was taken or when there was nothing."""
    progress: Progress = lambda what, done, total: None


class Restorer(Protocol):
    """How one live store is replaced, and put back. Constructing touches nothing.

    The engine (`recovery/engine.py`) keeps the order and the journal:

        outline → stage → check_staged → [services stop] → quiet → safety snapshot with take_over
        → switch → confirm → [services start, health] → finish
        or, on any failure and on `--rollback`: switch_back → finish

    `switch`, `switch_back` and `finish` are called again after a crash at any instruction of
    themselves, perhaps the other one of the two: they look at what is there, and end in exactly the
    new or exactly the old state. They need neither the repository nor anything in memory.
    """

    name: str
    type: str

    def outline(
        self,
        entry: Mapping[str, Any],
        mode: str,
        options: Mapping[str, Any],
        reader: Reader,
        node: Node,
    ) -> RestoreOutline:
        """Look, change nothing. `mode` is "" (choose), `offline`, `online` or `beside`.

        Raises RefusedError for every trap that can be seen now (hint: what to do).
        """

    def place(self) -> Path | None:
        """The folder in which `work` is made: on the file system of the live store. None: any, and
        the engine takes its own state folder."""

    def wanted(self, options: Mapping[str, Any]) -> Wanted | None:
        """What is staged; None: everything. What was staged is then in the notes, as `staged`:
        facts as those of a folder of files."""

    def check_staged(self, work: RestoreWork) -> list[Check]:
        """Prove the staged copy against the entry's facts without modifying it."""

    def quiet(self, work: RestoreWork) -> None:
        """Offline: prove that nobody uses the live store. Raises RefusedError (who, hint)."""

    def raw_files(self) -> list[Path]:
        """The live store's own files, for a safety copy of what can not be captured."""

    def take_over(self, work: RestoreWork, session: Session) -> bool:
        """Online: called when the safety snapshot's cut was just fixed and released. Lock out
        writers from now until `switch` has finished (or `let_go`). False: somebody wrote between,
        and the cut is taken again. Offline: True.

        `session` is the source's own, still open, with its cut fixed. Under a crowd of writers
        somebody always writes between: a restorer better moves the session's cut to the moment at
        which writers are locked out, and says True. When the last store is locked all cuts are
        the state of that instant."""

    def let_go(self, work: RestoreWork) -> None:
        """Give up what `take_over` locked. Idempotent, never raises."""

    def switch(self, work: RestoreWork) -> None:
        """Put the staged data in the live store's place. Raises RestoreError, RefusedError."""

    def touched(self, work: RestoreWork) -> bool:
        """Online, after a crash in or after `switch`: whether the live store was changed in any
        way. False: it is as before, and is saved again before `switch` is repeated. True: `switch`
        or `switch_back` ends it from what is there."""

    def switch_back(self, work: RestoreWork) -> None:
        """Exactly the data from before `switch`, whatever `switch` got to."""

    def confirm(self, work: RestoreWork) -> list[Check]:
        """Look at the live store after the switch: it is the restored one, and it opens."""

    def finish(self, work: RestoreWork, *, committed: bool) -> None:
        """Drop what is left over outside of `work` (markers, connections). Idempotent."""
