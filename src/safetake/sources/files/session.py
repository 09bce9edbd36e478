"""One capture of a folder: read everything, let the barrier fix a moment, then look once more.

`prepare` reads what differs from the parent; `hold` only reads the clock; `capture` walks again
and decides for each entry, by its stamps, which version was there at the cut (`cut.judge`). What
was changed after the cut is kept as it was seen before it, and what cannot be known is told: as a
note when the snapshot holds an earlier state that is whole, as unread when something is missing
or torn.

A folder whose listing is the parent's, down to the last change time, is taken over as a whole.
"""

from __future__ import annotations

import base64
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace

from safetake.config import FilesConfig
from safetake.errors import DamagedError, SourceError
from safetake.model import BlobId, CaptureContext, Captured, Cut, Node
from safetake.sources.files import walk
from safetake.sources.files.content import CHUNKER, Contents
from safetake.sources.files.cut import (
    FilesCut,
    Verdict,
    clock_set_back_ns,
    fix_cut,
    foreign_clock,
    judge,
    judge_absent,
    latest_ns,
)
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.facts import Totals
from safetake.sources.files.known import Folder, Known, ParentTree
from safetake.sources.files.metadata import (
    beside,
    birth_ns,
    kind_of,
    node_of,
    same,
    xattrs_of,
)
from safetake.sources.files.told import Told

MAX_FOLDERS = 1 << 16
"""Folders whose listing hash goes into the manifest (16 characters each)."""

SECOND_LOOK_NS = 200_000_000
"""A first pass longer than this is followed by a second one, so that little time lies before the
cut."""

METHOD = "read before, judged by change times at the cut"


@dataclass(slots=True)
class _Parent:
    """What the snapshot before offers. Only while it is `whole`, every blob of it being stored
    still, are folders taken over unread (`flats`) and `totals` carried on."""

    tree: ParentTree
    whole: bool
    flats: frozenset[bytes]
    totals: Totals


class FilesSession:
    """One capture of one folder."""

    def __init__(self, name: str, config: FilesConfig, context: CaptureContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._exclusions = Exclusions(config.exclude)
        self._done = 0
        self._contents = Contents(context.writer, self._advance)
        self._notes = Told(3)
        self._unread = Told(100)
        self._parent = self._open_parent()
        self._known = Known(context.scratch, None if self._parent is None else self._parent.tree)
        self._waiting: deque[tuple[int, str, bytes, Folder]] = deque()
        self._totals = Totals()
        self._flats: list[bytes] = []
        self._largest = (0, "")
        self._started = FilesCut(time.time_ns(), time.monotonic_ns())
        self._looked_ns = self._started.wall_ns
        self._cut: FilesCut | None = None
        self._root_device = 0

    def _advance(self, count: int) -> None:
        self._done += count
        self._context.progress(self._name, self._done, 0)

    def _open_parent(self) -> _Parent | None:
        parent = self._context.parent
        if parent is None or parent.node.subtree is None:
            return None
        fingerprint = parent.entry.get("fingerprint")
        if not isinstance(fingerprint, dict) or fingerprint.get("chunker") != CHUNKER:
            return None
        tree = ParentTree(parent.reader, parent.node.subtree)
        nothing = _Parent(tree, False, frozenset(), Totals())
        totals = Totals.of(parent.entry.get("facts") or {})
        text = fingerprint.get("unchanged")
        if totals is None or not isinstance(text, str):
            return nothing
        try:
            if not self._all_stored(parent.node.subtree):
                self._notes.add("blobs of the snapshot before are missing: read again", self._name)
                return nothing
        except DamagedError as error:
            self._notes.add(f"the snapshot before cannot be built upon: {error}", self._name)
            return None
        step = walk.FLAT_BYTES
        data = base64.b64decode(text)
        flats = frozenset(data[at : at + step] for at in range(0, len(data), step))
        return _Parent(tree, True, flats, totals)

    def _all_stored(self, tree: BlobId) -> bool:
        """Whether every tree and blob of the parent is still there, before any is taken over
        unread."""
        parent = self._context.parent
        assert parent is not None
        trees = [tree]
        while trees:
            nodes = parent.reader.tree(trees.pop())
            trees += [node.subtree for node in nodes if node.subtree is not None]
            if not self._context.writer.has(i for node in nodes for i in node.content or ()):
                return False
        return True

    # Before the cut

    def prepare(self) -> None:
        """Read everything that differs from the parent."""
        for _ in range(2):
            started = time.monotonic_ns()
            self._looked_ns = time.time_ns()
            self._contents.new_pass()
            root = self._open_root()
            try:
                self._root_device = os.fstat(root).st_dev
                self._survey(root, "", 0)
            finally:
                os.close(root)
            self._contents.settle()
            self._spool()
            if time.monotonic_ns() - started < SECOND_LOOK_NS:
                break

    def _open_root(self) -> int:
        path = self._config.path
        try:
            return walk.open_root(os.fspath(path))
        except FileNotFoundError as error:
            raise SourceError(
                f"source {self._name}: the folder {path} does not exist",
                hint="correct its path in the configuration, or mount the volume",
            ) from error
        except NotADirectoryError as error:
            raise SourceError(
                f"source {self._name}: {path} is not a folder",
                hint="name the folder that holds the files",
            ) from error
        except OSError as error:
            raise SourceError(
                f"source {self._name}: cannot open the folder {path}: {error.strerror}",
                hint="let the user that runs safetake read it",
            ) from error

    def _survey(self, folder: int, path: str, depth: int) -> None:
        """Look at a folder and all below it, and read what is not known yet."""
        try:
            listing = walk.look(folder, path, self._exclusions)
        except OSError:
            return  # told by `capture`, which meets it again
        if self._parent is not None and listing.flat in self._parent.flats:
            self._known.as_in_parent(path, listing.flat)
        elif listing.flat != self._known.flat(path):
            self._read_folder(folder, path, listing)
        for name, status in listing.entries:
            if kind_of(status.st_mode) == "dir" and self._enters(status, depth):
                with suppress(OSError), walk.opened_folder(folder, name) as inner:
                    self._survey(inner, walk.join(path, name), depth + 1)

    def _enters(self, status: os.stat_result, depth: int) -> bool:
        if depth >= walk.MAX_DEPTH:
            return False
        return not self._config.one_file_system or status.st_dev == self._root_device

    def _read_folder(self, folder: int, path: str, listing: walk.Listing) -> None:
        known = self._known.before(path)
        fresh = Folder({})
        nodes: dict[str, Node] = {}
        reused = self._reusable(known)
        for name, status in listing.entries:
            old = known.nodes.get(name)
            if (
                old is not None
                and same(status, old)
                and name not in known.unsettled
                and name not in known.torn
                and (old.content is None or reused is None or name in reused)
            ):
                nodes[name] = old
                continue
            with suppress(OSError):  # told by `capture`, which meets it again
                nodes[name] = self._read_entry(folder, name, status, fresh)
        fresh.nodes = nodes
        self._waiting.append((self._contents.mark, path, listing.flat, fresh))
        self._spool()

    def _reusable(self, known: Folder) -> set[str] | None:
        """Names whose content is in the repository still; None for all of them."""
        writer = self._context.writer
        if writer.has(i for node in known.nodes.values() for i in node.content or ()):
            return None
        return {name for name, node in known.nodes.items() if writer.has(node.content or ())}

    def _read_entry(self, folder: int, name: str, status: os.stat_result, into: Folder) -> Node:
        """A node with everything but a subtree. Raises OSError."""
        kind = kind_of(status.st_mode)
        if kind != "file":
            node = node_of(name, status)
            if kind == "symlink":
                node.linktarget = os.readlink(name, dir_fd=folder)
            node.xattrs = xattrs_of(beside(folder, name))
            return node
        descriptor = walk.open_file(folder, name)
        try:
            node, settled, torn = self._contents.read(descriptor, name, status)
        finally:
            os.close(descriptor)
        if not settled:
            into.unsettled.add(name)
        if torn:
            into.torn.add(name)
        return node

    def _spool(self) -> None:
        """Put folders away whose contents have all been worked out."""
        while self._waiting and self._waiting[0][0] <= self._contents.resolved:
            _, path, flat, folder = self._waiting.popleft()
            self._known.put(path, flat, folder)

    # The cut

    def hold(self, timeout: float) -> Cut:
        """Fix the cut by the clock. Nothing is locked: files know no lock."""
        self._cut = fix_cut()
        return Cut(held_ns=self._cut.monotonic_ns, fixed_ns=self._cut.monotonic_ns)

    def release(self) -> None:
        """Nothing is held."""

    # After the cut

    def capture(self) -> Captured:
        """Walk again, decide for each entry, store the trees."""
        if self._cut is None:
            raise SourceError(f"source {self._name}: captured without a cut")
        if self._parent is not None:
            self._totals = replace(self._parent.totals)
        self._contents.new_pass()
        root = self._open_root()
        try:
            status = os.fstat(root)
            tree = self._capture(root, "", 0)
            attributes = xattrs_of(root)
        except OSError as error:
            raise SourceError(
                f"source {self._name}: cannot read {self._config.path}: {error.strerror}",
                hint="look at the file system that it is on",
            ) from error
        finally:
            os.close(root)
        if tree is None:
            assert self._parent is not None
            tree = self._parent.tree.root
        self._check_not_empty()
        self._tell_about_the_clock()
        node = node_of(self._name, status)
        node.xattrs = attributes
        node.subtree = tree
        foreign = foreign_clock(status.st_dev)
        if foreign:
            self._notes.add(
                f"a file system of type {foreign} stamps by another clock: not one moment",
                self._name,
            )
        facts = self._totals.facts()
        facts["largest"] = {"path": ascii(self._largest[1])[1:-1], "bytes": self._largest[0]}
        unchanged = b"".join(self._flats[:MAX_FOLDERS])
        return Captured(
            node=node,
            bytes=self._totals.bytes,
            facts=facts,
            fingerprint={
                "chunker": CHUNKER,
                "unchanged": base64.b64encode(unchanged).decode(),
            },
            one_moment=not foreign,
            method=METHOD,
            unread=self._unread.lines(),
            notes=self._notes.lines(),
        )

    def _check_not_empty(self) -> None:
        totals = self._totals
        if self._config.may_be_empty or totals.files + totals.symlinks + totals.others:
            return
        raise SourceError(
            f"source {self._name}: there is no file in {self._config.path}",
            hint="mount the volume, correct the path, or set may_be_empty = true",
        )

    def _tell_about_the_clock(self) -> None:
        if lost := clock_set_back_ns(self._started):
            self._unread.add(
                f"the clock was set back by {lost / 1e9:.3f} s while the files were captured,"
                " so that change times do not tell what was there at the cut",
                self._name,
            )

    def _capture(self, folder: int, path: str, depth: int) -> BlobId | None:
        """Tree of an open folder; None when it is the parent's, unchanged. Raises OSError."""
        listing = walk.look(folder, path, self._exclusions)
        for problem, why in listing.problems:
            self._unread.add(why, problem)
        if self._parent is not None and listing.flat in self._parent.flats:
            below = {
                name: self._capture_below(folder, path, name, status, depth)
                for name, status in listing.entries
                if kind_of(status.st_mode) == "dir"
            }
            if not listing.problems and all(done and tree is None for done, tree in below.values()):
                self._note_listing(path, listing)
                return None
            return self._rebuild(folder, path, depth, listing, below)
        return self._rebuild(folder, path, depth, listing, {})

    def _note_listing(self, path: str, listing: walk.Listing) -> None:
        self._flats.append(listing.flat)
        for name, status in listing.entries:
            if status.st_size > self._largest[0] and kind_of(status.st_mode) == "file":
                self._largest = (status.st_size, walk.join(path, name))

    def _capture_below(
        self, folder: int, path: str, name: str, status: os.stat_result, depth: int
    ) -> tuple[bool, BlobId | None]:
        """(whether it could be read, its tree) of a folder inside an open one."""
        inner_path = walk.join(path, name)
        if depth >= walk.MAX_DEPTH:
            self._unread.add(f"deeper than {walk.MAX_DEPTH} folders", inner_path)
            return False, None
        if not self._enters(status, depth):
            return True, self._save(inner_path, [])
        try:
            with walk.opened_folder(folder, name) as inner:
                return True, self._capture(inner, inner_path, depth + 1)
        except OSError as error:
            self._unread.add(_why(error), inner_path)
            return False, None

    def _rebuild(
        self,
        folder: int,
        path: str,
        depth: int,
        listing: walk.Listing,
        below: dict[str, tuple[bool, BlobId | None]],
    ) -> BlobId:
        """Tree of a folder in which something differs from the parent."""
        known = self._known.folder(path)
        nodes: list[Node] = []
        exact = not listing.problems
        for name, status in listing.entries:
            node, is_exact = self._entry(folder, path, depth, name, status, listing, known, below)
            exact &= is_exact
            if node is not None:
                nodes.append(node)
        present = {name for name, _ in listing.entries}
        for name, old in known.nodes.items():
            if name not in present:
                kept = self._absent(path, old, listing)
                if kept is not None:
                    nodes.append(kept)
                    exact = False
        self._contents.settle()
        if exact:
            self._note_listing(path, listing)
        else:
            for node in nodes:
                if node.size > self._largest[0]:
                    self._largest = (node.size, walk.join(path, node.name))
        return self._save(path, nodes)

    def _save(self, path: str, nodes: list[Node]) -> BlobId:
        """Store a rebuilt folder and put it in the totals in its old version's place."""
        if self._parent is not None and self._parent.whole:
            before = self._parent.tree.folder(path)
            self._totals.add(path, before.values(), -1)
            folders = {node.name for node in nodes if node.type == "dir"}
            for node in before.values():
                if node.subtree is not None and node.name not in folders:
                    self._take_away(walk.join(path, node.name))
        self._totals.add(path, nodes)
        return self._context.writer.save_tree(nodes)

    def _take_away(self, path: str) -> None:
        assert self._parent is not None
        nodes = self._parent.tree.folder(path)
        self._totals.add(path, nodes.values(), -1)
        for node in nodes.values():
            if node.subtree is not None:
                self._take_away(walk.join(path, node.name))

    def _entry(
        self,
        folder: int,
        path: str,
        depth: int,
        name: str,
        status: os.stat_result,
        listing: walk.Listing,
        known: Folder,
        below: dict[str, tuple[bool, BlobId | None]],
    ) -> tuple[Node | None, bool]:
        """The node of an entry that is there now, and whether it is exactly what the listing
        says."""
        assert self._cut is not None
        where = walk.join(path, name)
        if not kind_of(status.st_mode):
            self._unread.add("of an unknown type", where)
            return None, False
        old = known.nodes.get(name)
        verdict = judge(
            status,
            old,
            settled=name not in known.unsettled and name not in known.torn,
            cut_ns=self._cut.wall_ns,
            folder_ns=listing.status.st_mtime_ns,
            birth=lambda: birth_ns(folder, name),
        )
        if verdict is Verdict.OMIT:
            return None, False
        if verdict is Verdict.UNSURE:
            self._notes.add("came into place around the cut: left out", where)
            return None, False
        if verdict is Verdict.LOST:
            self._unread.add("was there at the cut, but changed before it was read", where)
            return None, False
        kept = old is not None and verdict in (Verdict.KEEP, Verdict.OLDER)
        if kind_of(status.st_mode) == "dir" and not (
            kept and old is not None and old.type != "dir"
        ):
            return self._folder_entry(folder, path, depth, name, status, old, verdict, below)
        if kept and old is not None:
            return self._kept(path, old, known, verdict)
        return self._read_now(folder, where, name, status, old, known, verdict)

    def _folder_entry(
        self,
        folder: int,
        path: str,
        depth: int,
        name: str,
        status: os.stat_result,
        old: Node | None,
        verdict: Verdict,
        below: dict[str, tuple[bool, BlobId | None]],
    ) -> tuple[Node | None, bool]:
        done = below.get(name)
        if done is None:
            done = self._capture_below(folder, path, name, status, depth)
        readable, tree = done
        if not readable:
            return None, False
        if tree is None:
            assert self._parent is not None
            tree = self._parent.tree.tree(walk.join(path, name))
        if old is not None and verdict in (Verdict.KEEP, Verdict.OLDER):
            return replace(old, subtree=tree), verdict is Verdict.KEEP
        node = self._read_entry(folder, name, status, Folder())
        node.subtree = tree
        return node, verdict is Verdict.READ

    def _kept(
        self, path: str, old: Node, known: Folder, verdict: Verdict
    ) -> tuple[Node | None, bool]:
        where = walk.join(path, old.name)
        if old.name in known.torn:
            self._unread.add("changed all the time while it was read", where)
        elif verdict is Verdict.OLDER:
            self._notes.add(self._older("changed"), where)
        if old.type == "dir":
            return replace(old, subtree=self._keep_tree(where)), False
        # What was read in the tick of its last change is only this run's to use.
        exact = verdict is Verdict.KEEP and old.name not in known.unsettled
        return old, exact and old.name not in known.torn

    def _read_now(
        self,
        folder: int,
        where: str,
        name: str,
        status: os.stat_result,
        old: Node | None,
        known: Folder,
        verdict: Verdict,
    ) -> tuple[Node | None, bool]:
        """Read a file that was not known, or known in another state, at the cut."""
        assert self._cut is not None
        into = Folder()
        try:
            node = self._read_entry(folder, name, status, into)
        except OSError as error:
            self._unread.add(_why(error), where)
            return None, False
        if latest_ns(node.ctime_ns) <= self._cut.wall_ns and not into.torn:
            return node, verdict is Verdict.READ
        if verdict is Verdict.LATER and not into.torn:
            self._notes.add("its metadata were changed right after the cut", where)
            return node, False
        if old is not None and old.type == "file":
            reason = (
                "changed before the cut, and again before it was read: an earlier version is kept"
            )
            self._unread.add(reason, where)
            return old, False
        self._unread.add("changed while it was read", where)
        return node, False

    def _absent(self, path: str, old: Node, listing: walk.Listing) -> Node | None:
        """An entry that was known and is gone."""
        assert self._cut is not None
        where = walk.join(path, old.name)
        folder = listing.status
        if judge_absent(
            cut_ns=self._cut.wall_ns, folder_ns=folder.st_mtime_ns
        ) is Verdict.OMIT or self._exclusions.match(where, folder=old.type == "dir"):
            return None
        self._notes.add(self._older("deleted or renamed"), where)
        return replace(old, subtree=self._keep_tree(where)) if old.type == "dir" else old

    def _keep_tree(self, path: str) -> BlobId:
        """Tree of a folder that is gone, from what is known of it."""
        nodes = [
            replace(node, subtree=self._keep_tree(walk.join(path, node.name)))
            if node.type == "dir"
            else node
            for node in self._known.folder(path).nodes.values()
        ]
        return self._save(path, nodes)

    def _older(self, what: str) -> str:
        assert self._cut is not None
        before = max(0, self._cut.wall_ns - self._looked_ns) / 1e6
        return f"{what} after the cut: kept as seen up to {before:.0f} ms before it"

    def close(self) -> None:
        """Drop the spool and the open buffer."""
        self._contents.close()
        self._known.close()


def _why(error: OSError) -> str:
    return f"could not be read: {error.strerror or error}"
