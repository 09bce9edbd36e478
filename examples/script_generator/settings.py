"""Every setting of the application, from the environment or from flags; flags win.

Defaults are the places that requirements name (`/data/…`, ports 8001 and 8002).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from .errors import BadRequestError


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the four stores are and how the services reach each other."""

    database_url: str = "sqlite:////data/projects.db"
    chroma_path: str = "/data/chroma"
    redis_url: str = "redis://127.0.0.1:6379/0"
    scripts_dir: str = "/data/scripts"
    project_service_url: str = "http://127.0.0.1:8001"
    generation_service_url: str = "http://127.0.0.1:8002"
    cache_seconds: int = 3600

    @classmethod
    def load(
        cls, environment: Mapping[str, str] = os.environ, **flags: str | int | None
    ) -> Settings:
        """Settings from `environment` (`DATABASE_URL` …), overridden by every flag that is set.

        Raises BadRequestError for a number that is none.
        """
        values: dict[str, str | int] = {}
        for setting in fields(cls):
            value = flags.get(setting.name)
            if value is None:
                value = environment.get(setting.name.upper())
            if value is not None:
                values[setting.name] = value
        if "cache_seconds" in values:
            try:
                values["cache_seconds"] = int(values["cache_seconds"])
            except ValueError:
                raise BadRequestError("CACHE_SECONDS is not a whole number") from None
        return cls(**values)  # type: ignore[arg-type]  # one dict for str and int fields

    @property
    def database_path(self) -> Path:
        """The file behind `sqlite:////absolute`, `sqlite:///relative`, or a plain path."""
        url = self.database_url
        if "://" in url and not url.startswith("sqlite:///"):
            raise BadRequestError(f"DATABASE_URL is no SQLite URL: {url}")
        return Path(url.removeprefix("sqlite:///"))
