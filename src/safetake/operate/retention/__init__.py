"""Retention: which snapshots stay, for how long, and why.

`calendar` and `policy` are restic's --keep-within-… rules; `pins` is what stands above them;
`decide` puts both together over what `survey` reads; `run` does it, `simulate` shows what it
comes to.
"""

from safetake.operate.retention.report import PruneReport
from safetake.operate.retention.run import run_prune

__all__ = ["PruneReport", "run_prune"]
