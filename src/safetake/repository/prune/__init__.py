"""Pruning: snapshots go, and with them all that nothing else uses.

`plan_prune` finds out what is used and what is to be done, `run` does it. The long part of both
runs beside backups; a short one is alone and deletes. A kill at any moment leaves a repository in
which every kept snapshot is whole, and the next prune removes what is left over.
"""

from __future__ import annotations

from safetake.repository.prune.plan import MAX_UNUSED, PrunePlan, plan_prune
from safetake.repository.prune.run import WAIT_S, PruneResult, run

__all__ = ["MAX_UNUSED", "WAIT_S", "PrunePlan", "PruneResult", "plan_prune", "run"]
