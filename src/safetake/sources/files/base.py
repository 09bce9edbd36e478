"""The snapshot before, as far as an increment may build upon it."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from safetake.errors import DamagedError
from safetake.model import CaptureContext
from safetake.sources.files import walk
from safetake.sources.files.content import CHUNKER
from safetake.sources.files.facts import Totals
from safetake.sources.files.known import ParentTree

MAX_FOLDERS = 1 << 16
"""Folders whose listing hash goes into the manifest (16 characters each)."""


@dataclass(slots=True)
class Base:
    """What the snapshot before offers.

    Only while it is `whole`, every blob of it being stored still, are folders taken over unread
    (`flats` holds the hashes of their listings) and `totals` carried on.
    """

    tree: ParentTree
    whole: bool
    flats: frozenset[bytes]
    totals: Totals


def base_of(context: CaptureContext) -> tuple[Base | None, str]:
    """The base, if there is one, and what has to be told about it."""
    parent = context.parent
    if parent is None or parent.node.subtree is None:
        return None, ""
    fingerprint = parent.entry.get("fingerprint")
    if not isinstance(fingerprint, dict) or fingerprint.get("chunker") != CHUNKER:
        return None, ""
    tree = ParentTree(parent.reader, parent.node.subtree)
    entries_only = Base(tree, False, frozenset(), Totals())
    totals = Totals.of(parent.entry.get("facts") or {})
    text = fingerprint.get("unchanged")
    if totals is None or not isinstance(text, str):
        return entries_only, ""
    try:
        # what is taken over as a whole is never looked at again
        if not context.writer.whole(parent.node.subtree):
            return entries_only, "blobs of the snapshot before are missing: files were read again"
    except DamagedError as error:
        return None, f"the snapshot before is damaged, everything was read again: {error}"
    return Base(tree, True, frozenset(_flats(text)), totals), ""


def fingerprint_of(flats: list[bytes]) -> dict[str, str]:
    """What `base_of` wants to find in the manifest entry of this run; of MAX_FOLDERS at most."""
    text = base64.b64encode(b"".join(flats)).decode()
    return {"chunker": CHUNKER, "unchanged": text}


def _flats(text: str) -> list[bytes]:
    data = base64.b64decode(text)
    step = walk.FLAT_BYTES
    return [data[at : at + step] for at in range(0, len(data), step)]
