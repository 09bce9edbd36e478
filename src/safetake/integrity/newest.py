"""The newest snapshot of each source that this host took: what live data is measured against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from safetake.hostname import host_name
from safetake.model import Parent
from safetake.snapshots import list_snapshots, read_manifest, root_nodes

if TYPE_CHECKING:
    from safetake.repository import Repository


def newest(repository: Repository, wanted: Iterable[tuple[str, str]]) -> dict[str, Parent]:
    """By name of the source, for each (name, type) of `wanted` that a snapshot has.

    Only this host's: elsewhere inodes and times mean nothing. Raises DamagedError, StorageError.
    """
    left = dict(wanted)
    found: dict[str, Parent] = {}
    # before the index: what another backup stored after it was read is not in it
    snapshots = list_snapshots(repository, proofs=False)
    reader = repository.reader(trust_digests=False)  # some trees: not worth loading digests for
    for snapshot in reversed(snapshots):
        if not left:
            break
        mine = [name for name in snapshot.sources if name in left]
        if not mine or snapshot.document.get("hostname") != host_name():
            continue
        manifest = read_manifest(reader, snapshot)
        nodes = root_nodes(reader, snapshot)
        for name in mine:
            kind = left.pop(name)
            entry = (manifest or {}).get("sources", {}).get(name)
            if entry is not None and entry.get("type") == kind and name in nodes:
                entry["snapshot"] = snapshot.id
                found[name] = Parent(entry, nodes[name], reader)
    return found
