"""`ChromaSource`: a folder taken hot in one moment, or a server by URL as a marked export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import ConfigError, SafetakeError, SourceError
from safetake.model import CaptureContext, Session, SourceState
from safetake.sources.chroma.database import NAME

if TYPE_CHECKING:
    from safetake.config import ChromaConfig


class ChromaSource:
    """`model.Source` for Chroma. Held first: its hold may have the most to do."""

    type = "chroma"
    hold_rank = 10

    def __init__(self, name: str, config: ChromaConfig) -> None:
        self.name = name
        self._config = config

    def inspect(self) -> SourceState:
        try:
            if self._config.url is not None:
                from safetake.sources.chroma.rest import inspect_server

                return inspect_server(self._config)
            from safetake.sources.chroma.look import inspect_folder

            return inspect_folder(self._path())
        except SafetakeError as error:
            return SourceState(False, str(error), problems=[(str(error), error.hint)])

    def session(self, context: CaptureContext) -> Session:
        if self._config.url is not None:
            from safetake.sources.chroma.rest import RestSession

            return RestSession(self.name, self._config, context)
        from safetake.sources.chroma.session import ChromaSession

        return ChromaSession(self.name, self._path(), self._config, context)

    def _path(self) -> Path:
        if self._config.path is None:
            raise ConfigError(
                f"source {self.name}: neither `path` nor `url` is set",
                hint='set `path` to the folder with chroma.sqlite3, or `url` = "http://host:8000"',
            )
        require_folder(self._config.path)
        return self._config.path


def require_folder(folder: Path) -> None:
    """Raise SourceError with the next step unless the folder looks like a Chroma store."""
    if not folder.exists():
        raise SourceError(
            f"{folder} does not exist",
            hint="check `path` of the source, and that its volume is there",
        )
    if not folder.is_dir():
        raise SourceError(
            f"{folder} is a file, not a Chroma folder",
            hint=f"set `path` to the folder that holds {NAME}",
        )
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise SourceError(
            f"{folder} cannot be read: {error.strerror}",
            hint="give this user read access to the folder",
        ) from error
    if not names:
        raise SourceError(
            f"{folder} is empty: there is no Chroma store in it",
            hint="check that the volume is mounted, and that Chroma is started with this path",
        )
    if NAME not in names:
        old = any(name.endswith(".parquet") for name in names)
        raise SourceError(
            f"{folder} has no {NAME}: it is no Chroma store of version 0.4 or newer",
            hint="migrate the old store with `chroma-migrate`" if old else "check `path`",
        )
