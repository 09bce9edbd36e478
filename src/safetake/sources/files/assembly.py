"""After the cut: walk again, decide for each entry which version was there, build the trees."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from safetake.model import BlobId, CaptureContext, Node
from safetake.sources.files import walk
from safetake.sources.files.base import MAX_FOLDERS, Base
from safetake.sources.files.cut import FilesCut, Verdict, judge, judge_absent, latest_ns
from safetake.sources.files.facts import Totals, counts_alike
from safetake.sources.files.known import Folder
from safetake.sources.files.metadata import birth_ns, kind_of
from safetake.sources.files.survey import Survey
from safetake.sources.files.told import Told

_Below = tuple[bool, BlobId | None]
"""Whether a folder could be read, and its tree; None when that is the parent's."""


_AFTER = {
    Verdict.LATER: "its metadata were changed right after the cut",
    Verdict.ACROSS: "written just before the cut and after it: as it was right after it",
}


@dataclass(slots=True)
class _Here:
    """The folder that is being put together."""

    descriptor: int
    path: str
    depth: int
    listing: walk.Listing
    known: Folder
    below: dict[str, _Below]
    """Folders in it that have been captured already."""

    def join(self, name: str) -> str:
        return walk.join(self.path, name)

    def earlier(self, node: Node) -> Node:
        """A node from before the cut, as it may stand in the snapshot."""
        return _passing(node) if node.name in self.known.unsettled else node


class Assembly:
    """One walk after the cut. `run` once, then read the results."""

    def __init__(
        self,
        context: CaptureContext,
        survey: Survey,
        base: Base | None,
        cut: FilesCut,
        unread: Told,
        notes: Told,
    ) -> None:
        self._context = context
        self._survey = survey
        self._known = survey.known
        self._base = base
        self._cut = cut
        self._unread = unread
        self._notes = notes
        self.totals = Totals() if base is None else replace(base.totals)
        self.flats: list[bytes] = []
        """Hashes of the listings that the trees say exactly: the next run may rely on them."""
        self.largest = (0, "")
        """(bytes, path)"""

    def run(self, root: int) -> BlobId:
        """Tree of the open folder `root`. Raises OSError when it cannot be listed."""
        self._survey.contents.new_pass()
        tree = self._capture(root, "", 0)
        if tree is None:
            assert self._base is not None
            return self._base.tree.root
        return tree

    def _capture(self, folder: int, path: str, depth: int) -> BlobId | None:
        """Tree of an open folder; None when it is the parent's, unchanged. Raises OSError."""
        listing = walk.look(folder, path, self._survey.exclusions)
        for problem, why in listing.problems:
            self._unread.add(why, problem)
        here = _Here(folder, path, depth, listing, Folder(), {})
        if self._base is not None and listing.flat in self._base.flats:
            for name, status in listing.entries:
                if kind_of(status.st_mode) == "dir":
                    here.below[name] = self._capture_below(here, name, status)
            as_before = all(readable and tree is None for readable, tree in here.below.values())
            if as_before and not listing.problems:
                self._note_listing(here)
                return None
        here.known = self._known.folder(path)
        return self._rebuild(here)

    def _note_listing(self, here: _Here) -> None:
        if len(self.flats) < MAX_FOLDERS:
            self.flats.append(here.listing.flat)
        for name, status in here.listing.entries:
            if status.st_size > self.largest[0] and kind_of(status.st_mode) == "file":
                self.largest = (status.st_size, here.join(name))

    def _capture_below(self, here: _Here, name: str, status: os.stat_result) -> _Below:
        path = here.join(name)
        if here.depth >= walk.MAX_DEPTH:
            self._unread.add(f"deeper than {walk.MAX_DEPTH} folders", path)
            return False, None
        if not self._survey.enters(status, here.depth):
            return True, self._save(path, [])
        try:
            with walk.opened_folder(here.descriptor, name) as inner:
                return True, self._capture(inner, path, here.depth + 1)
        except OSError as error:
            self._unread.add(_why(error), path)
            return False, None

    def _rebuild(self, here: _Here) -> BlobId:
        """Tree of a folder in which something differs from the parent."""
        nodes: list[Node] = []
        exact = not here.listing.problems
        present: set[str] = set()
        for name, status in here.listing.entries:
            present.add(name)
            node, as_listed = self._entry(here, name, status)
            exact &= as_listed
            if node is not None:
                nodes.append(node)
        for name, old in here.known.nodes.items():
            if name not in present and (kept := self._absent(here, old)) is not None:
                nodes.append(kept)
                exact = False
        self._survey.contents.settle()
        if exact:
            self._note_listing(here)
        else:
            for node in nodes:
                if node.size > self.largest[0]:
                    self.largest = (node.size, here.join(node.name))
        return self._save(here.path, nodes)

    def _save(self, path: str, nodes: list[Node]) -> BlobId:
        """Store a rebuilt folder and put it in the totals in its old version's place."""
        counted: list[Node] = nodes
        if self._base is not None and self._base.whole:
            gone = dict(self._base.tree.folder(path))
            counted = []
            for node in nodes:
                old = gone.get(node.name)
                if old is not None and (old is node or counts_alike(old, node)):
                    del gone[node.name]
                else:
                    counted.append(node)
            self.totals.add(path, gone.values(), -1)
            folders = {node.name for node in counted if node.type == "dir"}
            for node in gone.values():
                if node.subtree is not None and node.name not in folders:
                    self._take_away(walk.join(path, node.name))
        self.totals.add(path, counted)
        return self._context.writer.save_tree(nodes)

    def _take_away(self, path: str) -> None:
        assert self._base is not None
        nodes = self._base.tree.folder(path)
        self.totals.add(path, nodes.values(), -1)
        for node in nodes.values():
            if node.subtree is not None:
                self._take_away(walk.join(path, node.name))

    def _entry(self, here: _Here, name: str, status: os.stat_result) -> tuple[Node | None, bool]:
        """The node of an entry that is there now, and whether the listing says exactly that."""
        where = here.join(name)
        kind = kind_of(status.st_mode)
        if not kind:
            self._unread.add("of an unknown type", where)
            return None, False
        old = here.known.nodes.get(name)
        verdict = judge(
            status,
            old,
            settled=name not in here.known.unsettled and name not in here.known.torn,
            cut_ns=self._cut.wall_ns,
            folder_ns=here.listing.status.st_mtime_ns,
            birth=lambda: birth_ns(here.descriptor, name),
        )
        if verdict is Verdict.OMIT:
            return None, False
        if verdict is Verdict.UNSURE:
            self._notes.add("came into place around the cut: left out", where)
            return None, False
        kept = old if verdict in (Verdict.KEEP, Verdict.OLDER) else None
        if kind == "dir" and (kept is None or kept.type == "dir"):
            return self._folder_entry(here, name, status, kept, verdict)
        if kept is not None:
            return self._kept(here, kept, verdict)
        return self._read_now(here, name, status, verdict)

    def _folder_entry(
        self, here: _Here, name: str, status: os.stat_result, kept: Node | None, verdict: Verdict
    ) -> tuple[Node | None, bool]:
        below = here.below.get(name)
        readable, tree = below or self._capture_below(here, name, status)
        if not readable:
            return None, False
        if tree is None:
            assert self._base is not None
            tree = self._base.tree.tree(here.join(name))
        if kept is not None:
            return replace(kept, subtree=tree), verdict is Verdict.KEEP
        node = self._survey.read_entry(here.descriptor, name, status, Folder())
        node.subtree = tree
        return node, verdict is Verdict.READ

    def _kept(self, here: _Here, old: Node, verdict: Verdict) -> tuple[Node | None, bool]:
        where = here.join(old.name)
        torn = old.name in here.known.torn
        if torn:
            self._unread.add("changed all the time while it was read", where)
        elif verdict is Verdict.OLDER:
            self._notes.add(self._older("changed"), where)
        if old.type == "dir":
            return replace(old, subtree=self._keep_tree(where)), False
        settled = not torn and old.name not in here.known.unsettled
        return here.earlier(old), settled and verdict is Verdict.KEEP

    def _read_now(
        self, here: _Here, name: str, status: os.stat_result, verdict: Verdict
    ) -> tuple[Node | None, bool]:
        """Read an entry that was not known, or known in another state, at the cut."""
        where = here.join(name)
        into = Folder()
        try:
            node = self._survey.read_entry(here.descriptor, name, status, into)
        except OSError as error:
            self._unread.add(_why(error), where)
            return None, False
        before_the_cut = latest_ns(node.ctime_ns) <= self._cut.wall_ns
        if before_the_cut and name not in into.unsettled:
            return node, verdict is Verdict.READ
        old = here.known.nodes.get(name)
        node = _passing(node) if name in into.unsettled else node
        if name not in into.torn and (verdict in _AFTER or before_the_cut or old is None):
            # It was written to between the look and the last read, by appending most likely.
            self._notes.add(_AFTER.get(verdict, _AFTER[Verdict.ACROSS]), where)
            return node, False
        if old is not None and old.type == "file":
            self._unread.add(
                "changed before the cut, and again before it was read: an earlier version is kept",
                where,
            )
            return here.earlier(old), False
        self._unread.add("changed while it was read", where)
        return node, False

    def _absent(self, here: _Here, old: Node) -> Node | None:
        """An entry that was known and is gone."""
        where = here.join(old.name)
        verdict = judge_absent(cut_ns=self._cut.wall_ns, folder_ns=here.listing.status.st_mtime_ns)
        if verdict is Verdict.OMIT:
            return None
        self._notes.add(self._older("deleted or renamed"), where)
        if old.type == "dir":
            return replace(old, subtree=self._keep_tree(where))
        return here.earlier(old)

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
        before = max(0, self._cut.wall_ns - self._survey.looked_ns) / 1e6
        return f"{what} after the cut: kept as seen up to {before:.0f} ms before it"


def _passing(node: Node) -> Node:
    """A file that was read in the tick of its last change, as the snapshot remembers it.

    A further write in that tick leaves all stamps as they are (always before Linux 6.13). Without
    a change time nobody takes what is there later for what was read: neither the next run, which
    would keep the old content, nor a search for bit rot.
    """
    return replace(node, ctime_ns=0)


def _why(error: OSError) -> str:
    return f"could not be read: {error.strerror or error}"
