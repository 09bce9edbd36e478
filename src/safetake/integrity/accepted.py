"""Losses that somebody said were meant: the live counts of that moment are the base from then on.

Kept in the state folder, one file for each repository, so that an alarm about a clean-up can be
ended before the snapshots from before it have left the window. Where the state folder does not
outlive the process (a pod without a volume), an acceptance does not either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.clock import now_ns as clock_now_ns
from safetake.counts import Counts
from safetake.errors import SafetakeError
from safetake.integrity.livecounts import live_counts
from safetake.state import state_folder, write_json

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository


@dataclass(frozen=True, slots=True)
class Accepted:
    """What one source held when its losses were accepted."""

    time_ns: int
    counts: Counts


def accept(
    config: Config, repository: Repository, name: str, *, now_ns: int | None = None
) -> Accepted:
    """What `name` holds now is right. Durable when it returns.

    Raises SafetakeError when the store cannot be counted or the state folder not written.
    """
    found = Accepted(
        clock_now_ns() if now_ns is None else now_ns, live_counts(config.sources[name])
    )
    kept = {
        source: {"time_ns": one.time_ns, "counts": one.counts.as_dict()}
        for source, one in (dict(accepted(config, repository)) | {name: found}).items()
    }
    path = _path(config, repository, create=True)
    try:
        write_json(path, {"format": 1, "sources": kept})
    except OSError as error:
        raise SafetakeError(
            f"cannot write {path}: {error.strerror}",
            hint="set `state` in the [restore] section to a folder that may be written",
        ) from error
    return found


def accepted(config: Config, repository: Repository) -> Mapping[str, Accepted]:
    """By source, the newest acceptance. Raises SafetakeError when it is there and unreadable."""
    path = _path(config, repository, create=False)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Accepted(int(one["time_ns"]), Counts.of(one["counts"]))
            for name, one in document["sources"].items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SafetakeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SafetakeError(
            f"{path} is damaged ({error})", hint="remove it, and accept again what was accepted"
        ) from error


def _path(config: Config, repository: Repository, *, create: bool) -> Path:
    folder = state_folder(config.restore.state, "drift", create=create)
    name = repository.id if repository.id.isalnum() else "repository"  # it names a file
    return folder / f"{name}.json"
