"""What a restore will write: the folders, files, links and special files of a snapshot's tree.

Trees come from a repository that an attacker may have written: names are single path components
(the tree decoder refuses others), folders are created before files and symbolic links last, so no
name can lead out of the target. Files in parts become one file again here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.columns import LAYOUT_NAME, PARTS_SUFFIX, Layout, load_layout
from safetake.errors import DamagedError

if TYPE_CHECKING:
    from safetake.model import BlobId, Node, Reader, Wanted

MAX_DEPTH = 1000
MAX_LAYOUT_BYTES = 1 << 16


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


@dataclass(slots=True)
class RestorePlan:
    """All that a tree holds."""

    folders: list[tuple[str, Node]] = field(default_factory=list)
    files: list[PlannedFile] = field(default_factory=list)
    others: list[tuple[str, Node]] = field(default_factory=list)
    """Symbolic links and special files."""
    split: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def keep_folders(self, root: str, whole: set[str]) -> None:
        """Only `root`, those of `whole`, and those that lead to anything."""
        kept = {root, *whole}
        ends = [*(file.path for file in self.files), *(path for path, _ in self.others), *whole]
        for path in ends:
            above = path.rpartition("/")[0]
            while above and above not in kept:
                kept.add(above)
                above = above.rpartition("/")[0]
        self.folders = [one for one in self.folders if one[0] in kept]

    def facts(self) -> dict[str, Any]:
        """Counts and digest of what is in the first folder, as a files source tells them."""
        from safetake.sources.files.facts import Totals

        totals = Totals()
        files = ((file.path, file.node) for file in self.files)
        for path, node in (*self.folders[1:], *files, *self.others):
            totals.add(path.partition("/")[2].rpartition("/")[0], [node])
        return totals.facts()


def plan_node(
    reader: Reader, node: Node, path: str, *, split: bool, wanted: Wanted | None = None
) -> RestorePlan:
    """Walk `node`, which will be at `path` below the target. Raises DamagedError.

    Only with `split` are folders of parts one file: a `files` source may hold any names. With
    `wanted` it is what that says, and the folders that lead there.
    """
    plan = RestorePlan(split=split)
    if node.type == "dir":
        named: set[str] = set()
        waiting = [(path, node, wanted is None or bool(wanted("", True, False)))]
        while waiting:  # no recursion: a tree may be deeper than Python's stack
            place, folder, mine = waiting.pop()
            if mine and wanted is not None:
                named.add(place)
            waiting += reversed(_folder(reader, place, folder, mine, plan, wanted))
        if wanted is not None:
            plan.keep_folders(path, named)
    elif node.type == "file":
        _check_size(reader, node, path)
        plan.files.append(PlannedFile(path, node))
    else:
        plan.others.append((path, node))
    return plan


def _folder(
    reader: Reader,
    path: str,
    folder: Node,
    whole: bool,
    plan: RestorePlan,
    wanted: Wanted | None,
) -> list[tuple[str, Node, bool]]:
    """Plan one folder; returns the folders in it, and whether each is wanted."""
    if path.count("/") > MAX_DEPTH:
        raise DamagedError(f"{path[:80]}…: more than {MAX_DEPTH} folders deep")
    if folder.subtree is None:
        raise DamagedError(f"{path}: a folder without content")
    plan.folders.append((path, folder))
    nodes = reader.tree(folder.subtree)
    names = {node.name for node in nodes}
    inner = []
    for node in nodes:
        place = f"{path}/{node.name}"
        is_folder = node.type == "dir"
        mine = wanted is None or wanted(place.partition("/")[2], is_folder, whole)
        if mine is None or not (mine or is_folder):
            continue
        if is_folder:
            base = node.name.removesuffix(PARTS_SUFFIX)
            odd = base == node.name or base in ("", ".", "..") or base in names
            if plan.split and not odd:
                split = _split(reader, node, f"{path}/{base}")
                if split is not None:
                    plan.files.append(split)
                    continue
            inner.append((place, node, mine))
        elif node.type == "file":
            _check_size(reader, node, place)
            plan.files.append(PlannedFile(place, node))
        else:
            plan.others.append((place, node))
    return inner


def _check_size(reader: Reader, node: Node, place: str) -> None:
    if sum(reader.sizes(node.content or [])) != node.size:
        raise DamagedError(f"{place}: its blobs do not make up its {node.size} bytes")


def _split(reader: Reader, node: Node, place: str) -> PlannedFile | None:
    """The file whose columns the folder holds, or None when it is an ordinary folder."""
    if node.subtree is None:
        return None
    inner = {item.name: item for item in reader.tree(node.subtree)}
    described = inner.get(LAYOUT_NAME)
    if described is None or described.content is None or described.size > MAX_LAYOUT_BYTES:
        return None
    layout = load_layout(b"".join(map(reader.blob, described.content)))
    parts = []
    for name, size in layout.part_sizes().items():
        part = inner.get(name)
        if part is None or part.content is None or sum(reader.sizes(part.content)) != size:
            raise DamagedError(f"{place}: its part {name!r} does not fit its layout")
        parts.append(part.content)
    # the folder's node carries what the layout does not: names of the owners and the like
    whole = inner[LAYOUT_NAME]
    file = PlannedFile(place, whole, layout, parts)
    whole.name = place.rpartition("/")[2]
    whole.mode, whole.mtime_ns = layout.mode, layout.mtime_ns
    whole.atime_ns, whole.size = layout.mtime_ns, layout.size
    whole.uid, whole.gid, whole.links = layout.uid, layout.gid, 1
    return file
