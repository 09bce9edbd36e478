"""What the configuration says of a disaster of one's own: `[drill.scenarios.NAME]`.

What is lost, what is not there for the recovery, and what must hold after it. What can not be
rehearsed together is refused here, with the reason.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from safetake.configbase import PasswordPlace, Section

Disaster = Literal["newest-snapshot", "repository", "password", "machine"]


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
    collection: str | None = Field(
        default=None, description="Chroma: name of the collection that is dropped"
    )
    keys: str | None = Field(default=None, description="Redis: pattern of the keys that vanish")
    files: str | None = Field(default=None, description="files: pattern of the paths that vanish")

    @model_validator(mode="after")
    def _one_way(self) -> LossConfig:
        ways = [self.everything, self.share is not None, bool(self.sql), bool(self.collection)]
        if [*ways, bool(self.keys), bool(self.files)].count(True) != 1:
            raise ValueError(
                "exactly one of everything, share, sql, collection, keys and files is needed"
            )
        return self

    @property
    def told(self) -> str:
        """The way in words."""
        ways = ("sql", "collection", "keys", "files", "share")
        given = ((way, getattr(self, way)) for way in ways)
        return next((f"{way} = {value!r}" for way, value in given if value), "everything")


class HoldConfig(Section):
    """What must hold after the recovery, on the copies."""

    name: str = Field(min_length=1, description="what it is, in a few words")
    source: str | None = Field(default=None, description="with `sql`: name of the SQLite source")
    sql: str | None = Field(
        default=None, description="a SELECT that returns no row, or the one value of `expected`"
    )
    expected: str | int | float | None = Field(
        default=None, description="with `sql`: the only value of the only row"
    )
    command: list[str] = Field(
        default=[], description="instead of `sql`: program and arguments; it exits 0"
    )

    @model_validator(mode="after")
    def _one_question(self) -> HoldConfig:
        if bool(self.sql) == bool(self.command):
            raise ValueError("exactly one of sql and command is needed")
        if bool(self.sql) != (self.source is not None):
            raise ValueError("source goes with sql, which needs it")
        if self.expected is not None and not self.sql:
            raise ValueError("expected goes with sql")
        return self


class ScenarioConfig(PasswordPlace):
    """A disaster of your own."""

    description: str = Field(default="", description="what happens, in a few words")
    lose: list[LossConfig] = Field(
        default=[], description="what is lost of the stores; with `without` alone: everything"
    )
    without: list[Disaster] = Field(
        default=[],
        description="what the recovery has to do without: `newest-snapshot`, `repository` (a copy "
        "is used), `password` (another one is used), `machine` (the recovery kit is used)",
    )
    recover_from: str | None = Field(
        default=None,
        description="without the repository: name of the [copies.NAME]; default the only one",
    )
    changed: bool = Field(
        default=False, description="bring back what was changed, too, not only what vanished"
    )
    hold: list[HoldConfig] = Field(default=[], description="what must hold after the recovery")

    @field_validator("without")
    @classmethod
    def _once(cls, without: list[Disaster]) -> list[Disaster]:
        if len(set(without)) != len(without):
            raise ValueError("names a disaster twice")
        return without

    @model_validator(mode="after")
    def _fits(self) -> ScenarioConfig:
        if not self.lose and not self.without:
            raise ValueError("one of lose and without is needed")
        if self.lose and "machine" in self.without:
            raise ValueError("without a machine every store is lost: lose does not go with it")
        whole = {one.source for one in self.lose if one.everything}
        for source in whole:
            if sum(one.source == source for one in self.lose) > 1:
                raise ValueError(f"everything of {source!r} is lost: nothing else of it can be")
        if "newest-snapshot" in self.without and not all(one.everything for one in self.lose):
            raise ValueError(
                "without the newest snapshot parts of a store can not be compared with anything: "
                "lose everything of it"
            )
        if ("password" in self.without) != (self.password_ways == 1):
            raise ValueError(
                "without the password, one of password_file, password_env and password_command "
                "says where another one is; they do not go with anything else"
            )
        if self.recover_from is not None and "repository" not in self.without:
            raise ValueError('recover_from goes with without = ["repository"]')
        return self
