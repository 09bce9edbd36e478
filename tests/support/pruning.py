"""Prunes of a repository in a folder: in this process, or as a program that can be watched.

python -m tests.support.pruning FOLDER MAX_UNUSED [SNAPSHOT]...
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from safetake.repository import Repository, prune
from safetake.repository.prune import PruneResult
from tests.support.repositories import open_repository


def pruned(
    repository: Repository, forget: Collection[str] = (), *, max_unused: float = 0.0
) -> PruneResult:
    """One prune, from plan to end."""
    return prune.run(repository, prune.plan_prune(repository, forget, max_unused=max_unused))


def main(arguments: Sequence[str]) -> int:
    """One prune in a process of its own."""
    folder, share, *forget = arguments
    repository = open_repository(Path(folder))
    plan = prune.plan_prune(repository, forget, max_unused=float(share))
    result = prune.run(repository, plan, wait=30)
    print(result.as_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
