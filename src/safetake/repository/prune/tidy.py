"""What safetake keeps beside the format, and what a prune does with it.

`proofs/` of trees that no snapshot has any more go. `digests/` loses the pairs of blobs that are
stored no longer. Neither decides about a blob: a digest leads to an id, and only the index says
whether that is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.errors import DamagedError
from safetake.repository.digests import DIGEST_BYTES, MAX_RECORDS, PAIR_BYTES, read_pairs

if TYPE_CHECKING:
    from safetake.repository import Repository
    from safetake.repository.prune.table import Bools, Table

_WORTH = 0.1
"""The share of pairs that must be of no use any more before the files are written anew."""


def proofs_by_name(repository: Repository) -> dict[str, str]:
    """The tree that each proof is about; those that cannot be read are left out."""
    found = {}
    for name, _ in repository.storage.list("proofs"):
        try:
            tree = repository.load_document("proofs", name).get("tree")
        except (FileNotFoundError, DamagedError):
            continue  # `check` tells of it, and a rung is not shown while it is there
        if isinstance(tree, str):
            found[name] = tree
    return found


def useful_pairs(
    repository: Repository, files: list[str], table: Table, stays: Bools
) -> tuple[list[str], bytes] | None:
    """(files to be replaced, their pairs of which the blob stays), or None when most of it stays.

    `stays` says it of each row.
    """
    import numpy as np

    read: list[str] = []
    bodies: list[bytes] = []
    for name in files:
        try:
            bodies.append(read_pairs(repository.storage, repository.key, name))
        except (FileNotFoundError, DamagedError):
            continue  # `check` tells of it
        read.append(name)
    pairs = np.frombuffer(b"".join(bodies), np.uint8).reshape(-1, PAIR_BYTES)
    if not len(pairs):
        return None
    # eight bytes of the id are enough: a pair too many does no harm
    heads = np.ascontiguousarray(pairs[:, DIGEST_BYTES : DIGEST_BYTES + 8]).view(">u8").ravel()
    good = np.isin(heads.astype(np.uint64), table.heads[stays])
    count = int(np.count_nonzero(good))
    if len(pairs) - count < _WORTH * len(pairs) or count > MAX_RECORDS:
        return None
    useful = pairs[good]
    records = sorted({bytes(record) for record in useful})
    return read, b"".join(records)
