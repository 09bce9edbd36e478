"""What a restore will write: the folders, files, links and special files of a snapshot's tree.

Trees come from a repository that an attacker may have written: names are single path components
(the tree decoder refuses others), folders are created before files and symbolic links last, so no
name can lead out of the target. Files in parts become one file again here. The plan is on disk:
memory is for one folder with those above it, and does not grow with the number of files.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from safetake.columns import LAYOUT_NAME, PARTS_SUFFIX, Layout, load_layout
from safetake.errors import DamagedError
from safetake.model import Node

if TYPE_CHECKING:
    import apsw

    from safetake.model import BlobId, Reader, Wanted

MAX_DEPTH = 1000
MAX_LAYOUT_BYTES = 1 << 16
_VALUES: Callable[[Node], tuple[Any, ...]] = attrgetter(*(each.name for each in fields(Node)))


@dataclass(slots=True)
class PlannedFile:
    """A file to write. `parts` is set when its bytes come from the columns of a split file."""

    path: str
    """Relative to the target, with `/`."""
    node: Node
    layout: Layout | None = None
    parts: list[list[BlobId]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.layout.size if self.layout is not None else self.node.size

    def blobs(self) -> Iterable[BlobId]:
        """Every blob that the file needs."""
        if self.layout is None:
            return self.node.content or ()
        return (blob for part in self.parts for blob in part)


class RestorePlan:
    """All that a tree holds, in an empty database that is its owner's to close."""

    def __init__(self, database: apsw.Connection, *, split: bool = False) -> None:
        self._database = database
        self.split = split
        self.bytes = 0
        """Of all files, by each of their names."""
        self.room = 0
        """What they need on a disk: names of one file once."""
        self.count = 0
        """Of files."""
        for table in ("folders", "files", "others"):
            database.execute(f"CREATE TABLE {table} (n INTEGER PRIMARY KEY, row BLOB)")
        database.execute("CREATE TABLE links (n INTEGER PRIMARY KEY, file INTEGER, row BLOB)")
        database.execute(
            "CREATE TABLE linked (inode TEXT PRIMARY KEY, file INTEGER, content BLOB) WITHOUT ROWID"
        )

    def folders(self, *, backwards: bool = False) -> Iterator[tuple[str, Node]]:
        """Each before, or backwards after, those in it."""
        way = "DESC" if backwards else "ASC"
        for (row,) in self._database.execute(f"SELECT row FROM folders ORDER BY n {way}"):
            yield _entry(row)

    def files(self) -> Iterator[PlannedFile]:
        """Files to write, each once."""
        for (row,) in self._database.execute("SELECT row FROM files ORDER BY n"):
            yield _file(row)

    def links(self) -> Iterator[tuple[str, str]]:
        """Further names of files: the path that is written, and the one to be a name of it."""
        rows = self._database.execute(
            "SELECT files.row, links.row FROM links JOIN files ON files.n = file ORDER BY links.n"
        )
        for written, link in rows:
            yield marshal.loads(written)[0], marshal.loads(link)[0]

    def others(self) -> Iterator[tuple[str, Node]]:
        """Symbolic links and special files."""
        for (row,) in self._database.execute("SELECT row FROM others ORDER BY n"):
            yield _entry(row)

    def facts(self) -> dict[str, Any]:
        """Counts and digest of what is in the first folder, as a files source tells them."""
        from safetake.sources.files.facts import Totals

        totals = Totals()
        for table in ("folders", "files", "links", "others"):
            for (row,) in self._database.execute(f"SELECT row FROM {table}"):
                path, _, _, *values = marshal.loads(row)
                inside = path.partition("/")[2]
                if inside:
                    totals.add(inside.rpartition("/")[0], [Node(*values)])
        return totals.facts()

    def add_folder(self, path: str, node: Node) -> None:
        """After the one that it is in."""
        self._add("folders", (path, None, (), *_VALUES(node)))

    def add_other(self, path: str, node: Node) -> None:
        """A symbolic link or special file."""
        self._add("others", (path, None, (), *_VALUES(node)))

    def add_file(
        self,
        path: str,
        node: Node,
        layout: bytes | None = None,
        parts: Iterable[list[BlobId]] = (),
    ) -> None:
        """A file; a further name of one is found by its inode, and by its content."""
        row = (path, layout, list(parts), *_VALUES(node))
        self.count += 1
        self.bytes += node.size
        if layout is None and node.links > 1 and node.inode:
            inode, content = f"{node.inode}:{node.device_id}", _digest(node)
            first = self._database.execute(
                "SELECT file, content FROM linked WHERE inode = ?", (inode,)
            ).fetchone()
            # one inode with two contents was reused, or is a lie: each keeps its own bytes
            if first is not None and first[1] == content:
                self._database.execute(
                    "INSERT INTO links (file, row) VALUES (?, ?)", (first[0], marshal.dumps(row))
                )
                return
            number = self._add("files", row)
            if first is None:
                self._database.execute(
                    "INSERT INTO linked VALUES (?, ?, ?)", (inode, number, content)
                )
        else:
            self._add("files", row)
        self.room += node.size

    def _add(self, table: str, row: tuple[Any, ...]) -> int:
        self._database.execute(f"INSERT INTO {table} (row) VALUES (?)", (marshal.dumps(row),))
        return self._database.last_insert_rowid()


def _entry(row: Any) -> tuple[str, Node]:
    path, _, _, *values = marshal.loads(row)
    return path, Node(*values)


def _file(row: Any) -> PlannedFile:
    path, layout, parts, *values = marshal.loads(row)
    return PlannedFile(path, Node(*values), None if layout is None else load_layout(layout), parts)


def _digest(node: Node) -> bytes:
    digest = hashlib.sha256()
    for blob_id in node.content or ():
        digest.update(blob_id)
    return digest.digest()


def plan_node(
    reader: Reader,
    node: Node,
    path: str,
    plan: RestorePlan,
    *,
    wanted: Wanted | None = None,
) -> None:
    """Walk `node`, which will be at `path` below the target, into `plan`. Raises DamagedError.

    Only with `split` are folders of parts one file: a `files` source may hold any names. With
    `wanted` it is what that says, and the folders that lead there.
    """
    if node.type == "file":
        _check_size(reader, node, path)
        plan.add_file(path, node)
        return
    if node.type != "dir":
        plan.add_other(path, node)
        return
    walk = _Walk(reader, plan, wanted)
    waiting = [(0, path, node, wanted is None or bool(wanted("", True, False)))]
    while waiting:  # no recursion: a tree may be deeper than Python's stack
        depth, place, folder, whole = waiting.pop()
        inner = walk.folder(depth, place, folder, whole)
        waiting += [(depth + 1, *each) for each in reversed(inner)]


class _Walk:
    """One walk through a tree, folder by folder."""

    def __init__(self, reader: Reader, plan: RestorePlan, wanted: Wanted | None) -> None:
        self._reader = reader
        self._plan = plan
        self._wanted = wanted
        self._above: list[tuple[str, Node]] = []
        """The folder at hand, after those that it is in."""
        self._kept = 0
        """How many of them are in the plan: the others may lead to nothing that is wanted."""

    def folder(
        self, depth: int, path: str, folder: Node, whole: bool
    ) -> list[tuple[str, Node, bool]]:
        """Plan one folder; returns the folders in it, and whether each is wanted."""
        if path.count("/") > MAX_DEPTH:
            raise DamagedError(f"{path[:80]}…: more than {MAX_DEPTH} folders deep")
        if folder.subtree is None:
            raise DamagedError(f"{path}: a folder without content")
        del self._above[depth:]
        self._above.append((path, folder))
        self._kept = min(self._kept, depth)
        if whole or not depth:
            self._keep()
        nodes = self._reader.tree(folder.subtree)
        names = {node.name for node in nodes}
        inner = []
        for node in nodes:
            place = f"{path}/{node.name}"
            is_folder = node.type == "dir"
            mine = self._wanted is None or self._wanted(place.partition("/")[2], is_folder, whole)
            if mine is None or not (mine or is_folder):
                continue
            if is_folder:
                base = node.name.removesuffix(PARTS_SUFFIX)
                odd = base == node.name or base in ("", ".", "..") or base in names
                if not (self._plan.split and not odd and self._split(node, f"{path}/{base}")):
                    inner.append((place, node, mine))
                continue
            self._keep()
            if node.type == "file":
                _check_size(self._reader, node, place)
                self._plan.add_file(place, node)
            else:
                self._plan.add_other(place, node)
        return inner

    def _keep(self) -> None:
        for path, node in self._above[self._kept :]:
            self._plan.add_folder(path, node)
        self._kept = len(self._above)

    def _split(self, node: Node, place: str) -> bool:
        """Plan the file whose columns the folder holds; False when it is an ordinary folder."""
        if node.subtree is None:
            return False
        inner = {item.name: item for item in self._reader.tree(node.subtree)}
        described = inner.get(LAYOUT_NAME)
        if described is None or described.content is None or described.size > MAX_LAYOUT_BYTES:
            return False
        text = b"".join(map(self._reader.blob, described.content))
        layout = load_layout(text)
        parts = []
        for name, size in layout.part_sizes().items():
            part = inner.get(name)
            if (
                part is None
                or part.content is None
                or sum(self._reader.sizes(part.content)) != size
            ):
                raise DamagedError(f"{place}: its part {name!r} does not fit its layout")
            parts.append(part.content)
        # the folder's node carries what the layout does not: names of the owners and the like
        described.name = place.rpartition("/")[2]
        described.mode, described.mtime_ns = layout.mode, layout.mtime_ns
        described.atime_ns, described.size = layout.mtime_ns, layout.size
        described.uid, described.gid, described.links = layout.uid, layout.gid, 1
        self._keep()
        self._plan.add_file(place, described, text, parts)
        return True


def _check_size(reader: Reader, node: Node, place: str) -> None:
    if sum(reader.sizes(node.content or [])) != node.size:
        raise DamagedError(f"{place}: its blobs do not make up its {node.size} bytes")
