"""What the configuration says of the work that runs by itself: when, how, and who hears of it.

Sections: `[jobs.NAME]`, `[retention]`, `[references.NAME]`, `[drift]`, `[integrity]`,
`[daemon]`, `[metrics]`, `[notify]`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from safetake.configbase import FilePath, Section, Span, Url
from safetake.ids import Template

_CALENDAR_SPAN = re.compile(r"(?=\d)(\d+y)?(\d+m)?(\d+w)?(\d+d)?(\d+h)?")


def _calendar_span(text: str) -> str:
    if _CALENDAR_SPAN.fullmatch(text) is None:
        raise ValueError(
            f"{text[:40]!r} is no span of the calendar: write 24h, 30d, 12w, 12m (months) or 1y6m"
        )
    return text


CalendarSpan = Annotated[str, AfterValidator(_calendar_span)]
"""Years, months (`m`), weeks, days and hours, as restic's --keep-within has them, and weeks."""


def _zone(name: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name[:60]!r}") from None
    return name


def _expression(schedule: str) -> str:
    from datetime import UTC, datetime

    from cronsim import CronSim, CronSimError

    try:
        if len(schedule.split()) != 5:
            raise CronSimError("Wrong number of fields")  # six: cronsim would take seconds
        next(CronSim(schedule, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(
            f"{schedule[:60]!r} is no cron expression of five fields ({error})"
        ) from None
    return schedule


Zone = Annotated[str, AfterValidator(_zone)]
"""A name of the IANA database, such as `Asia/Seoul`."""


class JobConfig(Section):
    """A named piece of work, by hand or on a schedule."""

    kind: Literal["backup", "verify", "check", "integrity", "prune", "copy", "drill"] = Field(
        description="`backup`, `verify` (newest snapshot of each source), `check` (repository), "
        "`integrity` (live data), `prune` (retention), `copy` (to a second repository) or `drill` "
        "(a rehearsed disaster)"
    )
    sources: list[str] = Field(default=[], description="names of sources; empty: all")
    schedule: str | None = Field(
        default=None, description="cron expression of five fields; without it: only by hand"
    )
    timezone: Zone = Field(default="UTC", description="zone of the schedule, such as `Asia/Seoul`")
    catch_up: bool = Field(
        default=True, description="run once, at once, after runs were missed while nothing ran"
    )
    jitter: Span = Field(default=0, ge=0, description="seconds of random delay, at most")
    timeout: Span = Field(default=21600, gt=0, description="seconds until a run is ended")
    retries: int = Field(default=2, ge=0, description="further tries after a failure")
    retry_delay: Span = Field(
        default=60, gt=0, description="seconds before the first retry; doubles each time"
    )
    wait: Span = Field(
        default=600, ge=0, description="seconds to wait for another job on the same sources"
    )
    level: Literal["read", "open"] = Field(
        default="open", description="of `verify`: how far the snapshots are proven"
    )
    read_data: bool = Field(default=False, description="of `check`: read every byte")
    to: str | None = Field(default=None, description="of `copy`: name of a [copies.NAME]")
    scenario: str = Field(
        default="total-loss", description="of `drill`: `partial-loss`, `total-loss` or one's own"
    )

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str | None) -> str | None:
        return None if schedule is None else _expression(schedule)

    @model_validator(mode="before")
    @classmethod
    def _never_in_place(cls, told: Any) -> Any:
        if isinstance(told, dict) and "in_place" in told:
            raise ValueError(
                "a drill in place is never a job: it stops production, and a person confirms it "
                "with `safetake drill total-loss --in-place`"
            )
        return told

    @model_validator(mode="after")
    def _fits(self) -> JobConfig:
        if (self.kind == "copy") != (self.to is not None):
            raise ValueError("to goes with kind `copy`, which needs it")
        if self.sources and self.kind in ("check", "prune", "copy"):
            raise ValueError(f"a job of kind {self.kind} is over the repository: no sources")
        return self


class KeepConfig(Section):
    """How long snapshots are kept, counted back from the newest."""

    within: CalendarSpan | None = Field(default=None, description="keep everything for so long")
    hourly: CalendarSpan | None = Field(default=None, description="keep one each hour for so long")
    daily: CalendarSpan | None = Field(default=None, description="keep one each day for so long")
    weekly: CalendarSpan | None = Field(default=None, description="keep one each week for so long")
    monthly: CalendarSpan | None = Field(
        default=None, description="keep one each month for so long"
    )
    yearly: CalendarSpan | None = Field(default=None, description="keep one each year for so long")


class RetentionConfig(KeepConfig):
    """What `prune` keeps, for each job by itself; without any rule it removes nothing."""

    timezone: Zone = Field(default="UTC", description="zone in which hours, days and months begin")
    floor: Span = Field(default=3600, ge=0, description="seconds: nothing younger is removed")
    safety: CalendarSpan = Field(
        default="30d",
        description="how long what a restore replaced is kept: its snapshots, and undo files of "
        "rows, records and keys",
    )
    keep_tags: list[str] = Field(
        default=["keep"], description="snapshots with one of these tags are never removed"
    )
    max_unused: float = Field(
        default=0.05, ge=0, le=1, description="share of the repository that may lie unused"
    )
    append_only: bool = Field(
        default=False, description="refuse to prune: the repository is append-only"
    )
    jobs: dict[str, KeepConfig] = Field(default={}, description="other rules for a job's snapshots")


_WAYS = ("sql", "collection", "keys", "files")


class ReferenceEnd(Section):
    """One side of a reference: where the ids stand, by one of sql, collection, keys and files."""

    source: str = Field(description="name of the source")
    sql: str | None = Field(
        default=None, description="SQLite: a SELECT of one column, the ids (NULL is skipped)"
    )
    collection: str | None = Field(default=None, description="Chroma: name of the collection")
    field: str = Field(
        default="id", description="with `collection`: the key of the metadata, or `id`"
    )
    keys: str | None = Field(
        default=None,
        description="Redis: pattern of the keys, with `{id}` where the id stands "
        "(`{id*}`: it may hold `:`)",
    )
    db: int | None = Field(
        default=None, ge=0, description="with `keys`: only this database; default all of them"
    )
    files: str | None = Field(
        default=None,
        description="files: pattern of the paths, with `{id}` where the id stands "
        "(`{id*}`: it may hold `/`)",
    )

    @property
    def way(self) -> str:
        """Which of the four it is."""
        return next(name for name in _WAYS if getattr(self, name))

    @model_validator(mode="after")
    def _one_way(self) -> ReferenceEnd:
        ways = [name for name in _WAYS if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError("exactly one of sql, collection, keys and files is needed")
        for name in ("keys", "files"):
            pattern = getattr(self, name)
            if pattern is None:
                continue
            try:
                Template.parse(pattern)
            except ValueError:
                raise ValueError(f"{name} needs {{id}} once, where the id stands") from None
        if self.db is not None and self.keys is None:
            raise ValueError("db goes with keys")
        return self


class ReferenceConfig(Section):
    """A reference between stores: every id on one side must be on the other."""

    model_config = ConfigDict(populate_by_name=True)

    from_: ReferenceEnd = Field(alias="from", description="the side that refers")
    to: ReferenceEnd = Field(description="the side that must have it")
    settle: Span = Field(
        default=5,
        ge=0,
        description="seconds for which an id must stay missing: what an application writes to one "
        "side after the other is no offender meanwhile",
    )


class DriftGuard(Section):
    """What counts as a sudden change of a store since the snapshots of the last days."""

    shrink: float | None = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of rows, records, keys or files that vanished; 0: not asked",
    )
    incompressible: float | None = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of replaced content that does not compress any more; 0: not asked",
    )

    @field_validator("shrink", "incompressible")
    @classmethod
    def _off(cls, share: float | None) -> float | None:
        return share or None


class DriftConfig(DriftGuard):
    """Guards against silent loss, and by source."""

    window: Span = Field(
        default=604800,
        gt=0,
        description="seconds that an alarm lasts: the largest count of the snapshots of this time "
        "is what the live data is measured against",
    )
    sources: dict[str, DriftGuard] = Field(default={}, description="other limits, by source")


class IntegrityConfig(Section):
    """`safetake integrity`: how much a look at the live stores may cost."""

    quick_above: int = Field(
        default=8 << 30,
        ge=0,
        description="bytes of a SQLite database above which `quick_check` is asked instead of "
        "`integrity_check` (about 7 seconds for each GB)",
    )
    read_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="bytes of a folder of files that are read and compared in one run; every file "
        "has its turn",
    )
    timeout: Span = Field(
        default=3600, gt=0, description="seconds until a store that does not answer hangs"
    )
    scratch: FilePath | None = Field(
        default=None,
        description="folder for copies of live stores, about twice the largest; default $TMPDIR",
    )


class DaemonConfig(Section):
    """`safetake run`."""

    listen: str | None = Field(
        default="127.0.0.1:9760",
        description="host:port of /metrics, /healthz and /readyz; empty: none",
    )
    concurrency: int = Field(default=2, ge=1, description="jobs that run at the same time")
    grace: Span = Field(
        default=30, gt=0, description="seconds that a job has to end before it is killed"
    )
    lease: Span = Field(
        default=60,
        ge=2,
        description="seconds without a sign of life until another daemon takes over",
    )


class MetricsConfig(Section):
    """Where one-shot jobs leave their metrics (the daemon serves /metrics)."""

    textfile: FilePath | None = Field(
        default=None, description="file for node_exporter's textfile collector, ends in `.prom`"
    )
    pushgateway: Url | None = Field(
        default=None, description="URL of a Pushgateway, such as `http://pushgateway:9091`"
    )

    @field_validator("textfile")
    @classmethod
    def _collected(cls, textfile: FilePath | None) -> FilePath | None:
        if textfile is not None and textfile.suffix != ".prom":
            raise ValueError("must end in .prom: node_exporter reads no other file")
        return textfile

    @field_validator("pushgateway")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None and (
            urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname
        ):
            raise ValueError("must begin with http:// or https:// and name a host")
        return url


class NotifyConfig(Section):
    """Who hears of it. URLs of Apprise hold secrets: a file or a variable is the place for them."""

    urls: list[str] = Field(
        default=[], repr=False, description="URLs of Apprise that hold no secret"
    )
    urls_env: str | None = Field(
        default=None, description="environment variable with URLs, separated by white space"
    )
    urls_file: FilePath | None = Field(default=None, description="file with one URL in each line")
    on: list[Literal["failure", "recovery", "overdue", "digest"]] = Field(
        default=["failure", "recovery", "overdue"], description="what is told"
    )
    digest: Annotated[str, AfterValidator(_expression)] = Field(
        default="0 8 * * 1", description="cron expression of the digest"
    )
    timezone: Zone = Field(
        default="UTC", description="zone of the digest's times and of those in messages"
    )
    remind: Span = Field(
        default=86400, gt=0, description="seconds until a failure that lasts is told again"
    )
    ping_env: dict[str, str] = Field(
        default={},
        description="job to the environment variable with its URL at a dead man's switch "
        "(called at success, with /start and /fail added at the others)",
    )
