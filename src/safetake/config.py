"""The configuration file: TOML, validated, every mistake named with the nearest right word.

Sections: `[repository]`, `[sources.NAME]`, `[jobs.NAME]`. Relative paths are relative to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RepositoryConfig(_Section):
    """Where snapshots are kept and how its password is found (exactly one of the three)."""

    location: str
    password_file: Path | None = None
    password_env: str | None = None
    password_command: str | None = None


class SqlCheck(_Section):
    """A query that must return no row: each row is an offender."""

    name: str
    sql: str


class SqliteConfig(_Section):
    """A SQLite database file (both journal modes, live)."""

    type: Literal["sqlite"]
    path: Path
    checks: list[SqlCheck] = []
    busy_timeout: float = Field(default=5.0, gt=0, description="seconds to wait for a writer")
    may_be_empty: bool = Field(
        default=False, description="accept a database without any table (never a 0-byte file)"
    )


class ChromaConfig(_Section):
    """A Chroma store: `path` of its folder (one moment), or `url` of a server (logical)."""

    type: Literal["chroma"]
    path: Path | None = None
    url: str | None = None
    tenant: str | None = None
    database: str | None = None
    headers: dict[str, str] = {}
    headers_env: dict[str, str] = Field(
        default={}, description="header name to the environment variable that holds its value"
    )
    max_hold: float = Field(default=10.0, gt=0, description="seconds the store may be held")


class RedisConfig(_Section):
    """A Redis or Valkey server: redis://, rediss:// or unix:// (password by env or file)."""

    type: Literal["redis"]
    url: str
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    method: Literal["auto", "replication", "scan"] = "auto"


class FilesConfig(_Section):
    """A folder of files."""

    type: Literal["files"]
    path: Path
    exclude: list[str] = Field(
        default=[], description="patterns as in .gitignore without '!', relative to path"
    )
    one_file_system: bool = False
    may_be_empty: bool = False


SourceConfig = Annotated[
    SqliteConfig | ChromaConfig | RedisConfig | FilesConfig, Field(discriminator="type")
]


class JobConfig(_Section):
    """A named piece of work."""

    kind: Literal["backup"]
    sources: list[str] = []
    """Empty: all."""


class BarrierConfig(_Section):
    """How long the stores may be held together."""

    timeout: float = Field(default=2.0, gt=0, description="seconds to wait for one store's writers")
    attempts: int = Field(default=5, ge=1, description="tries before the backup fails")


class Config(_Section):
    """The whole file."""

    repository: RepositoryConfig
    sources: dict[str, SourceConfig] = {}
    jobs: dict[str, JobConfig] = {}
    barrier: BarrierConfig = BarrierConfig()
