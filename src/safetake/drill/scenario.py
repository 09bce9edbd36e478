"""What happens in a drill: the two built-in disasters, and those of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetake.configdrill import BUILT_IN
from safetake.configscenario import LossConfig, ScenarioConfig
from safetake.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from safetake.config import Config
    from safetake.snapshots import SnapshotInfo

PARTIAL, TOTAL = BUILT_IN
NEWEST_SHARE = 0.1


def find_scenario(config: Config, name: str, sources: Sequence[str]) -> ScenarioConfig:
    """The scenario of that name, over `sources`. Raises UsageError when there is none."""
    if name in config.drill.scenarios:
        found = config.drill.scenarios[name]
        if found.lose:
            return found
        everything = [LossConfig(source=source, everything=True) for source in sources]
        return found.model_copy(update={"lose": everything})
    if name == PARTIAL:
        return ScenarioConfig(
            description="the newest rows, records, keys and files vanish",
            lose=[LossConfig(source=source, share=NEWEST_SHARE) for source in sources],
        )
    if name == TOTAL:
        return ScenarioConfig(
            description="every store is gone",
            lose=[LossConfig(source=source, everything=True) for source in sources],
        )
    from safetake.wording import nearest

    raise UsageError(
        f"there is no scenario {name!r}{nearest(name, [*BUILT_IN, *config.drill.scenarios])}",
        hint="partial-loss, total-loss, or a [drill.scenarios.NAME] of the configuration",
    )


def needed(config: Config, name: str, sources: Sequence[str]) -> list[str]:
    """What a snapshot must have to be drilled with: the sources that are named, or that the
    scenario names. Empty: whatever it has."""
    scenario = config.drill.scenarios.get(name)
    if sources or scenario is None:
        return list(sources)
    asked = (hold.source for hold in scenario.hold if hold.source is not None)
    return list(dict.fromkeys([*(loss.source for loss in scenario.lose), *asked]))


def check(
    scenario: ScenarioConfig, name: str, snapshot: SnapshotInfo, entries: Mapping[str, Any]
) -> None:
    """Raise UsageError when what is lost, or asked afterwards, is not rehearsed."""
    asked = [hold.source for hold in scenario.hold if hold.source is not None]
    for source in (*(loss.source for loss in scenario.lose), *asked):
        if source in entries:
            continue
        if source in snapshot.sources:
            raise UsageError(
                f"scenario {name} needs {source!r}, which is not among the sources named",
                hint="name it as well, or none: the scenario's are taken then",
            )
        raise UsageError(
            f"scenario {name}: snapshot {snapshot.id[:8]} has no {source!r}",
            hint="a drill starts from one snapshot: a backup of all that the scenario names",
        )
    for loss in scenario.lose:
        if loss.collection is None:
            continue
        facts = entries[loss.source].get("facts", {}).get("collections", {})
        there = sorted({str(one.get("name")) for one in facts.values()})
        if loss.collection not in there:
            from safetake.wording import nearest

            raise UsageError(
                f"scenario {name}: {loss.source} has no collection {loss.collection!r} in "
                f"snapshot {snapshot.id[:8]}{nearest(loss.collection, there)}",
                hint="it has: " + ", ".join(there) if there else "it has none",
            )


def targets(config: Config, scenario: ScenarioConfig) -> dict[str, float]:
    """The seconds that were promised for what is lost: the largest objective that applies.

    `rto_seconds` for whole stores, `partial_rto_seconds` for parts; `rpo_seconds` is the smallest.
    """
    found: dict[str, float] = {}
    whole = [loss.source for loss in scenario.lose if loss.everything]
    part = [loss.source for loss in scenario.lose if not loss.everything]
    objectives = config.objectives
    if len(whole) > 1 and "system" in objectives and objectives["system"].rto is not None:
        found["rto_seconds"] = objectives["system"].rto
    else:
        given = [objectives[name].rto for name in whole if name in objectives]
        if promised := [each for each in given if each is not None]:
            found["rto_seconds"] = max(promised)
    given = [objectives[name].partial_rto for name in part if name in objectives]
    if not whole and (promised := [each for each in given if each is not None]):
        found["partial_rto_seconds"] = max(promised)
    names = {*whole, *part}
    given = [objectives[name].rpo for name in names if name in objectives]
    if promised := [each for each in given if each is not None]:
        found["rpo_seconds"] = min(promised)
    return found
