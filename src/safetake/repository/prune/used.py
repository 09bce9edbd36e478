"""What snapshots use: every tree and every blob below them, marked in the table.

Nothing is guessed: a snapshot, a tree or a reference that cannot be read, or a blob that is in no
index, ends it. Whoever deletes must know all that is needed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safetake.errors import DamagedError
from safetake.repository.prune.table import DATA, TREE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from safetake.model import Progress
    from safetake.repository import Repository
    from safetake.repository.prune.table import Table

_HINT = "nothing was removed; run `safetake check` to see what else is damaged"


def root_of(repository: Repository, name: str) -> bytes:
    """The root tree of a snapshot. Raises FileNotFoundError, DamagedError."""
    what = f"snapshots/{name}"
    document = repository.load_document("snapshots", name)
    try:
        root = bytes.fromhex(document["tree"])
        if len(root) == 32:
            return root
    except (KeyError, TypeError, ValueError):
        pass
    raise DamagedError(f"{what} is damaged: it has no tree", hint=_HINT)


def mark_used(
    table: Table,
    tree_blob: Callable[[bytes], bytes | bytearray],
    roots: Iterable[bytes],
    progress: Progress | None = None,
    elsewhere: Callable[[bytes, bool], bool] | None = None,
) -> None:
    """Mark all that the trees `roots` use; what is marked already is known with all below it.

    `elsewhere` says whether a blob that is not in the table is safe in another place. Raises
    DamagedError for a blob that is nowhere and for a tree that cannot be read.
    """
    other: set[bytes] = set()
    """Trees that are not in the table."""
    waiting = list(dict.fromkeys(roots))
    done = 0
    while waiting:
        tree = waiting.pop()
        row = table.find(tree, TREE)
        if row is None:
            if tree in other:
                continue
            other.add(tree)
            _not_lost([tree], elsewhere, tree=True)
        elif table.marks[row] & TREE:
            continue
        else:
            table.marks[row] |= TREE
        subtrees, content = references(tree_blob(tree), tree)
        _not_lost(table.mark(content, DATA), elsewhere, tree=False)
        waiting += subtrees
        done += 1
        if progress is not None and done % 64 == 0:
            progress("folders", done, done + len(waiting))


def references(blob: bytes | bytearray, tree: bytes) -> tuple[list[bytes], bytes]:
    """(subtrees, ids of data blobs one after the other) of a tree. Raises DamagedError."""
    try:
        nodes = json.loads(blob)["nodes"] or []
        subtrees = []
        content: list[str] = []
        for node in nodes:
            subtree = node.get("subtree")
            if subtree is not None:
                subtrees.append(bytes.fromhex(subtree))
            elif node["type"] == "dir":
                raise ValueError("a folder without a tree")
            content += node.get("content") or ()
        ids = bytes.fromhex("".join(content))
        if len(ids) != 32 * len(content) or any(len(one) != 32 for one in subtrees):
            raise ValueError("an impossible id")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"tree {tree.hex()[:12]} is damaged: not a tree ({error})", hint=_HINT
        ) from error
    return subtrees, ids


def _not_lost(
    ids: list[bytes], elsewhere: Callable[[bytes, bool], bool] | None, *, tree: bool
) -> None:
    for blob_id in ids:
        if elsewhere is None or not elsewhere(blob_id, tree):
            kind = "tree" if tree else "data"
            raise DamagedError(
                f"{kind} blob {blob_id.hex()[:12]} is in no index, and a snapshot needs it",
                hint=_HINT,
            )
