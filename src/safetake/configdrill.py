"""What the configuration says of drills: `[drill]`, `[drill.services.NAME]`, `[drill.scenarios.…]`.

`{NAME}` in a command, a value or a URL stands for the place of source NAME in the drill (a path, or
the URL of a Redis server), `{port}` for the service's port there, `{port:OTHER}` for another's.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from safetake.configbase import FilePath, Section, Span

BUILT_IN = ("partial-loss", "total-loss")


class DrillServiceConfig(Section):
    """How a service is started on a drill's copies."""

    command: list[str] = Field(min_length=1, description="program and arguments; it stays running")
    environment: dict[str, str] = Field(default={}, description="variables that it gets")
    health: str = Field(
        default="", description="URL that answers 2xx when it is well, with `{port}`"
    )
    contains: str = Field(
        default="",
        description="text that the answer must contain; `{count:SOURCE}` or `{count:SOURCE/PART}` "
        "in it is the number of items that are there",
    )
    uses: list[str] = Field(default=[], description="names of its sources; empty: all")


class LossConfig(Section):
    """What is lost of one source."""

    source: str = Field(description="name of the source")
    everything: bool = Field(default=False, description="the whole store")
    share: float | None = Field(
        default=None, gt=0, le=1, description="newest share of its rows, records, keys or files"
    )
    sql: str | None = Field(
        default=None, description="SQLite: a statement that deletes or spoils rows"
    )
    keys: str | None = Field(default=None, description="Redis: pattern of the keys that vanish")
    files: str | None = Field(default=None, description="files: pattern of the paths that vanish")

    @model_validator(mode="after")
    def _one_way(self) -> LossConfig:
        ways = [self.everything, self.share is not None, bool(self.sql), bool(self.keys)]
        if [*ways, bool(self.files)].count(True) != 1:
            raise ValueError("exactly one of everything, share, sql, keys and files is needed")
        return self


class ScenarioConfig(Section):
    """A disaster of your own."""

    description: str = Field(default="", description="what happens, in a few words")
    lose: list[LossConfig] = Field(min_length=1, description="what is lost")
    changed: bool = Field(
        default=False, description="bring back what was changed, too, not only what vanished"
    )


class DrillConfig(Section):
    """Rehearsed disasters on isolated copies."""

    scratch: FilePath | None = Field(
        default=None, description="where copies are made; default $TMPDIR"
    )
    timeout: Span = Field(default=7200, gt=0, description="seconds until a drill is ended")
    start_timeout: Span = Field(
        default=120, gt=0, description="seconds until a service must be well"
    )
    priority: Literal["low", "normal"] = Field(
        default="low",
        description="of the drill's processes for processor and disk: `low` gives way to "
        "everything else, and measures an RTO that is rather too long",
    )
    services: dict[str, DrillServiceConfig] = Field(
        default={}, description="how services are started on the copies"
    )
    scenarios: dict[str, ScenarioConfig] = Field(default={}, description="disasters of your own")
