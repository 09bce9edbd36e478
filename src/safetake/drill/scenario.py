"""What happens in a drill: the two built-in disasters, and those of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.configdrill import BUILT_IN, LossConfig, ScenarioConfig
from safetake.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safetake.config import Config

PARTIAL, TOTAL = BUILT_IN
NEWEST_SHARE = 0.1


def find_scenario(config: Config, name: str, sources: Sequence[str]) -> ScenarioConfig:
    """The scenario of that name, over `sources`. Raises UsageError when there is none."""
    if name in config.drill.scenarios:
        return config.drill.scenarios[name]
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
