"""The rungs that only a drill reaches: `restored`, and `app-checked` where services answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake import __version__
from safetake.clock import go_time, now_ns
from safetake.snapshots import APP_CHECKED, RESTORED

if TYPE_CHECKING:
    from safetake.evidence import Evidence
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo


def record_rung(
    repository: Repository, snapshot: SnapshotInfo, document: Evidence, *, answered: bool
) -> None:
    """Keep it with the snapshot: all of it was lost and came back. Raises StorageError."""
    repository.save_document(
        "proofs",
        {
            "safetake": __version__,
            "snapshot": snapshot.id,
            "tree": snapshot.tree.hex(),
            "rung": APP_CHECKED if answered else RESTORED,
            "ok": True,
            "evidence": document.id,
            "time": go_time(now_ns()),
            "seconds": round((document.ended_ns - document.started_ns) / 1e9, 3),
            "bytes": int(document.measured.get("bytes", 0)),
            "problems": [],
            "checks": {},
        },
    )
