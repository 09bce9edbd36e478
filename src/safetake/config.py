"""What the configuration file may say: typed, frozen models, and nothing that touches a store.

Sections: `[repository]`, `[sources.NAME]`, `[jobs.NAME]`, `[barrier]`, `[services.NAME]`,
`[objectives.NAME]`, `[restore]`, `[copies.NAME]`, and those of the modules beside it.
`safetake.configfile` finds and reads the file and words its mistakes; no model here holds a
password, only where to find one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from safetake.configbase import FilePath, PasswordPlace, Section, Span, Url, resolve
from safetake.configdrill import BUILT_IN, DrillConfig
from safetake.configjobs import (
    DaemonConfig,
    DriftConfig,
    IntegrityConfig,
    JobConfig,
    MetricsConfig,
    NotifyConfig,
    ReferenceConfig,
    RetentionConfig,
)
from safetake.configkube import KubernetesConfig
from safetake.configservices import HealthConfig as HealthConfig
from safetake.configservices import ServiceConfig as ServiceConfig
from safetake.configservices import SwitchConfig as SwitchConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A source's name is a folder's name in the snapshot, on any system, without quoting."""

_WAYS = {"sqlite": "sql", "chroma": "collection", "redis": "keys", "files": "files"}
"""How ids are asked of each type of source."""

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""A location with a scheme is no folder (one letter and a colon would be a drive)."""


class RepositoryConfig(PasswordPlace):
    """Where snapshots are kept and how its password is found (at most one of the three).

    With none of the three the password is taken from $SAFETAKE_PASSWORD, then $RESTIC_PASSWORD.
    """

    location: str = Field(description="folder of the repository")
    lock_wait: Span = Field(
        default=60,
        ge=0,
        description="seconds to wait while another process has the repository for itself (a prune)",
    )
    overlay: FilePath | None = Field(
        default=None,
        description="folder that takes every change, and the repository is only read (drills)",
    )

    @field_validator("location")
    @classmethod
    def _local(cls, location: str, info: ValidationInfo) -> str:
        if not location.strip():
            raise ValueError("is empty")
        if REMOTE.match(location):
            raise ValueError("this version keeps repositories in local folders only")
        return str(resolve(Path(location), info))


class SqlCheck(Section):
    """A query that must return no row: each row is an offender."""

    name: str = Field(description="what the query looks for, in a few words")
    sql: str = Field(description="a SELECT that returns one row for each offender")


class SqliteConfig(Section):
    """A SQLite database file (both journal modes, live)."""

    type: Literal["sqlite"] = Field(description="`sqlite`")
    path: FilePath = Field(description="the database file")
    checks: list[SqlCheck] = Field(
        default=[], description="queries that must return no row, asked of every opened copy"
    )
    busy_timeout: float = Field(default=5.0, gt=0, description="seconds to wait for a writer")
    may_be_empty: bool = Field(
        default=False, description="accept a database without any table (never a 0-byte file)"
    )


class ChromaConfig(Section):
    """A Chroma store: `path` of its folder (one moment), or `url` of a server (logical)."""

    type: Literal["chroma"] = Field(description="`chroma`")
    path: FilePath | None = Field(
        default=None, description="the store's folder, with `chroma.sqlite3` in it"
    )
    url: Url | None = Field(
        default=None, description="a server instead of a folder; not one moment, and marked so"
    )
    server: Url | None = Field(
        default=None,
        description="with `path`: the server that uses the folder, for restores of collections "
        "and records while it runs",
    )
    tenant: str | None = Field(
        default=None,
        description="with `url`: the tenant; a server does not tell which it has, so each is a "
        "source of its own",
    )
    database: str | None = Field(default=None, description="with `url`: only this database")
    headers: dict[str, str] = Field(
        default={},
        repr=False,
        description="with `url` or `server`: headers of each request, no secrets",
    )
    headers_env: dict[str, str] = Field(
        default={}, description="header name to the environment variable that holds its value"
    )
    max_hold: float = Field(default=10.0, gt=0, description="seconds the store may be held")

    @model_validator(mode="after")
    def _one_place(self) -> ChromaConfig:
        if (self.path is None) == (self.url is None):
            raise ValueError("exactly one of path and url is needed")
        if self.url is not None and self.server is not None:
            raise ValueError("server goes with path; url is the server already")
        return self


class RedisConfig(Section):
    """A Redis or Valkey server: redis://, rediss:// or unix:// (password by env or file)."""

    type: Literal["redis"] = Field(description="`redis`")
    url: Url = Field(description="`redis://host:port`, `rediss://host:port` or `unix:///path`")
    username: str | None = Field(default=None, description="ACL user")
    password_env: str | None = Field(
        default=None, description="name of the environment variable that holds the password"
    )
    password_file: FilePath | None = Field(
        default=None, description="file that holds the password and nothing else"
    )
    tls_ca: FilePath | None = Field(default=None, description="certificate authority, PEM")
    tls_cert: FilePath | None = Field(default=None, description="client certificate, PEM")
    tls_key: FilePath | None = Field(default=None, description="key of the client certificate, PEM")
    method: Literal["auto", "replication", "scan"] = Field(
        default="auto",
        description="`replication` (one moment), `scan` (not one moment, marked so), or "
        "`auto`: replication, and scan where the server does not allow it",
    )
    may_be_empty: bool = Field(default=False, description="accept a server without any key")
    data: FilePath | None = Field(
        default=None,
        description="the server's own folder (`dir`), with dump.rdb and appendonlydir: for "
        "restores while the server is stopped",
    )

    @field_validator("url")
    @classmethod
    def _scheme(cls, url: str) -> str:
        if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @model_validator(mode="after")
    def _one_password(self) -> RedisConfig:
        if self.password_env is not None and self.password_file is not None:
            raise ValueError("only one of password_env and password_file may be given")
        return self


class FilesConfig(Section):
    """A folder of files."""

    type: Literal["files"] = Field(description="`files`")
    path: FilePath = Field(description="the folder")
    exclude: list[str] = Field(
        default=[], description="patterns as in .gitignore without '!', relative to path"
    )
    one_file_system: bool = Field(default=False, description="do not cross into other mounts")
    may_be_empty: bool = Field(default=False, description="accept a folder without any file")


SourceConfig = Annotated[
    SqliteConfig | ChromaConfig | RedisConfig | FilesConfig, Field(discriminator="type")
]


class BarrierConfig(Section):
    """How long the stores may be held together."""

    timeout: float = Field(default=2.0, gt=0, description="seconds to wait for one store's writers")
    attempts: int = Field(default=5, ge=1, description="tries before the backup fails")


class RestoreConfig(Section):
    """Restores in place."""

    state: FilePath | None = Field(
        default=None,
        description="folder of the journal; default $XDG_STATE_HOME/safetake. It must outlive "
        "the process: on Kubernetes, a volume",
    )


class ObjectiveConfig(Section):
    """What a source promises."""

    rto: Span | None = Field(default=None, gt=0, description="seconds until it is back in full")
    partial_rto: Span | None = Field(
        default=None, gt=0, description="seconds until lost rows, keys or files are back"
    )
    rpo: Span | None = Field(default=None, gt=0, description="seconds of data that may be lost")


def _check_names(names: dict[str, Any], what: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{what} name {name!r}: letters, digits, '.', '_' and '-' only, "
                "beginning with a letter or digit, at most 64"
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(f"{what} names {other!r} and {name!r} differ only in case")


class Config(Section):
    """The whole file."""

    repository: RepositoryConfig
    sources: dict[str, SourceConfig] = Field(default={})
    jobs: dict[str, JobConfig] = Field(default={})
    barrier: BarrierConfig = BarrierConfig()
    services: dict[str, ServiceConfig] = Field(default={})
    objectives: dict[str, ObjectiveConfig] = Field(default={})
    restore: RestoreConfig = RestoreConfig()
    copies: dict[str, RepositoryConfig] = Field(default={})
    retention: RetentionConfig = RetentionConfig()
    references: dict[str, ReferenceConfig] = Field(default={})
    drift: DriftConfig = DriftConfig()
    integrity: IntegrityConfig = IntegrityConfig()
    daemon: DaemonConfig = DaemonConfig()
    metrics: MetricsConfig = MetricsConfig()
    notify: NotifyConfig = NotifyConfig()
    kubernetes: KubernetesConfig = KubernetesConfig()
    drill: DrillConfig = DrillConfig()

    @model_validator(mode="after")
    def _agree(self) -> Config:
        from safetake.wording import nearest

        _check_names(self.sources, "source")
        _check_names(self.jobs, "job")
        _check_names(self.services, "service")
        _check_names(self.copies, "copy")
        _check_names(self.references, "reference")
        for job_name, job in self.jobs.items():
            if job_name in self.sources:
                raise ValueError(f"{job_name!r} names both a job and a source")
            for source in job.sources:
                if source not in self.sources:
                    raise ValueError(
                        f"jobs.{job_name}.sources: there is no source {source!r}"
                        + nearest(source, self.sources)
                    )
            scenarios = [*BUILT_IN, *self.drill.scenarios]
            if job.kind == "drill" and job.scenario not in scenarios:
                raise ValueError(
                    f"jobs.{job_name}.scenario: there is no scenario {job.scenario!r}"
                    + nearest(job.scenario, scenarios)
                )
            if job.to is not None and job.to not in self.copies:
                raise ValueError(
                    f"jobs.{job_name}.to: there is no copy {job.to!r}"
                    + nearest(job.to, self.copies)
                )
        for job_name in self.retention.jobs:
            if job_name not in self.jobs:
                raise ValueError(
                    f"retention.jobs: there is no job {job_name!r}" + nearest(job_name, self.jobs)
                )
        for job_name in self.notify.ping_env:
            if job_name not in self.jobs:
                raise ValueError(
                    f"notify.ping_env: there is no job {job_name!r}" + nearest(job_name, self.jobs)
                )
        for reference_name, reference in self.references.items():
            for end in (reference.from_, reference.to):
                if end.source not in self.sources:
                    raise ValueError(
                        f"references.{reference_name}: there is no source {end.source!r}"
                        + nearest(end.source, self.sources)
                    )
                kind = self.sources[end.source].type
                if end.way != _WAYS[kind]:
                    raise ValueError(
                        f"references.{reference_name}: {end.source} is of type {kind}, "
                        f"which is asked by {_WAYS[kind]}, not by {end.way}"
                    )
        _check_names(self.drill.services, "drill service")
        for drilled_name, drilled in self.drill.services.items():
            for source in drilled.uses:
                if source not in self.sources:
                    raise ValueError(
                        f"drill.services.{drilled_name}.uses: there is no source {source!r}"
                        + nearest(source, self.sources)
                    )
        _check_names(self.drill.scenarios, "scenario")
        for scenario_name, scenario in self.drill.scenarios.items():
            if scenario_name in BUILT_IN:
                raise ValueError(f"drill.scenarios.{scenario_name}: this name is built in")
            for loss in scenario.lose:
                if loss.source not in self.sources:
                    raise ValueError(
                        f"drill.scenarios.{scenario_name}.lose: there is no source "
                        f"{loss.source!r}" + nearest(loss.source, self.sources)
                    )
                kind = self.sources[loss.source].type
                for way, of in (("sql", "sqlite"), ("collection", "chroma"), ("keys", "redis"),
                                ("files", "files")):  # fmt: skip
                    if getattr(loss, way) is not None and kind != of:
                        raise ValueError(
                            f"drill.scenarios.{scenario_name}.lose: {way} is lost of a source of "
                            f"type {of}, and {loss.source!r} is {kind}"
                        )
            for hold in scenario.hold:
                if hold.source is None:
                    continue
                if hold.source not in self.sources:
                    raise ValueError(
                        f"drill.scenarios.{scenario_name}.hold: there is no source "
                        f"{hold.source!r}" + nearest(hold.source, self.sources)
                    )
                if self.sources[hold.source].type != "sqlite":
                    raise ValueError(
                        f"drill.scenarios.{scenario_name}.hold: sql is asked of SQLite, and "
                        f"{hold.source!r} is {self.sources[hold.source].type}"
                    )
            if scenario.recover_from is not None and scenario.recover_from not in self.copies:
                raise ValueError(
                    f"drill.scenarios.{scenario_name}.recover_from: there is no copy "
                    f"{scenario.recover_from!r}" + nearest(scenario.recover_from, self.copies)
                )
        for name in self.drift.sources:
            if name not in self.sources:
                raise ValueError(
                    f"drift.sources: there is no source {name!r}" + nearest(name, self.sources)
                )
        for service_name, service in self.services.items():
            for source in (*service.uses, *service.switch):
                if source not in self.sources:
                    raise ValueError(
                        f"services.{service_name}: there is no source {source!r}"
                        + nearest(source, self.sources)
                    )
        for name in self.objectives:
            if name != "system" and name not in self.sources:
                raise ValueError(
                    f"objectives.{name}: there is no source {name!r}" + nearest(name, self.sources)
                )
        repository = Path(self.repository.location)
        for name, source_config in self.sources.items():
            if isinstance(source_config, FilesConfig) and (
                repository == source_config.path or source_config.path in repository.parents
            ):
                raise ValueError(
                    f"sources.{name}.path: the repository lies inside this folder, "
                    "and each backup would store the backups before it"
                )
        return self


def json_schema() -> str:
    """The JSON Schema of the file, as it is published in docs/config.schema.json."""
    import json

    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "safetake.toml",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
