"""The segments of the parent snapshot: files whose stat has not moved are taken over unread."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from safetake.columns import PARTS_SUFFIX
from safetake.errors import SafetakeError
from safetake.model import CaptureContext, Node
from safetake.sources.chroma.pieces import FileCopy
from safetake.sources.chroma.segments import SegmentCopy

# A write in the same clock tick as the recorded times leaves no trace in them; FAT and some network
# file systems keep times to 2 s.
_RACY_NS = 2_000_000_000


def fingerprint(copy: SegmentCopy) -> dict[str, Any]:
    """What the next run compares the files with; files written just now are left out."""
    now = time.time_ns()
    return {
        name: list(file.key)
        for name, file in copy.files.items()
        if now - max(file.key[2], file.key[3]) >= _RACY_NS and not copy.doubt
    }


class ParentSegments:
    """Looks into the parent snapshot; a damaged or foreign parent is as good as none."""

    def __init__(self, context: CaptureContext) -> None:
        self._context = context
        self._folders: dict[str, Node] | None = None

    def copy(self, segment: str) -> SegmentCopy:
        """The parent's files of a segment, to be compared with the folder: never complete."""
        found = SegmentCopy(segment, None)
        prints = _dict(_dict(self._entry("fingerprint"), "segments"), segment)
        children = self._children(segment) if prints else {}
        for name, key in prints.items():
            if not (isinstance(key, list) and len(key) == 4 and all(type(n) is int for n in key)):
                continue
            node = children.get(name) or children.get(name + PARTS_SUFFIX)
            if node is not None:
                state = os.stat_result(
                    (node.mode, key[0], 0, 0, node.uid, node.gid, key[1], 0, 0, 0)
                )
                found.files[name] = FileCopy((key[0], key[1], key[2], key[3]), state, reused=[node])
        return found

    def facts(self, segment: str) -> dict[str, Any]:
        """What the parent's manifest says about a segment; empty when it does not."""
        return _dict(_dict(self._entry("facts"), "segments"), segment)

    def _entry(self, key: str) -> dict[str, Any]:
        parent = self._context.parent
        return _dict(parent.entry, key) if parent is not None else {}

    def _children(self, segment: str) -> dict[str, Node]:
        parent = self._context.parent
        if parent is None or parent.node.subtree is None:
            return {}
        try:
            if not self._context.writer.whole(parent.node.subtree):
                return {}
            if self._folders is None:
                tree = parent.reader.tree(parent.node.subtree)
                self._folders = {node.name: node for node in tree}
            folder = self._folders.get(segment)
            if folder is None or folder.subtree is None:
                return {}
            return {node.name: node for node in parent.reader.tree(folder.subtree)}
        except SafetakeError:
            return {}  # this run stores everything anew


def _dict(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
