"""The stores that are protected, one package each, behind the `Source` of model.py.

Each package has the source, and `questions` that are put to a restored copy of it. They are
imported when a configuration names them: numpy, redis or httpx cost more than `safetake --help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.config import SourceConfig
    from safetake.findings import Asked, Asking
    from safetake.model import Opener, Restorer, Source


def load(kind: object) -> None:
    """Import what a type of source needs, ahead of `build`; an unknown type needs nothing."""
    if kind == "sqlite":
        import safetake.sources.sqlite
    elif kind == "chroma":
        import safetake.sources.chroma.session
        import safetake.sources.chroma.source
    elif kind == "redis":
        import safetake.sources.redis
    elif kind == "files":
        import safetake.sources.files  # noqa: F401


def build(name: str, config: SourceConfig) -> Source:
    """The source that a section of the configuration describes; touches nothing yet."""
    if config.type == "sqlite":
        from safetake.sources.sqlite import SqliteSource

        return SqliteSource(name, config)
    if config.type == "chroma":
        from safetake.sources.chroma.source import ChromaSource

        return ChromaSource(name, config)
    if config.type == "redis":
        from safetake.sources.redis import RedisSource

        return RedisSource(name, config)
    from safetake.sources.files import FilesSource

    return FilesSource(name, config)


def restorer(name: str, config: SourceConfig) -> Restorer:
    """How the live store that a section describes is replaced; touches nothing yet."""
    if config.type == "sqlite":
        from safetake.sources.sqlite.restore import SqliteRestorer

        return SqliteRestorer(name, config)
    if config.type == "chroma":
        from safetake.sources.chroma.restore import ChromaRestorer

        return ChromaRestorer(name, config)
    if config.type == "redis":
        from safetake.sources.redis.restore import RedisRestorer

        return RedisRestorer(name, config)
    from safetake.sources.files.restore import FilesRestorer

    return FilesRestorer(name, config)


def opener(kind: str) -> Opener:
    """The questions for a restored copy of a type of source. Raises SafetakeError."""
    if kind == "sqlite":
        from safetake.sources.sqlite import questions as ask_sqlite

        return ask_sqlite
    if kind == "chroma":
        from safetake.sources.chroma.proof import questions as ask_chroma

        return ask_chroma
    if kind == "redis":
        from safetake.sources.redis import questions as ask_redis

        return ask_redis
    if kind in ("files", "raw"):  # raw: a safety copy of what could not be captured
        from safetake.sources.files import questions as ask_files

        return ask_files
    raise SafetakeError(
        f"the snapshot has a source of the unknown type {kind[:20]!r}", hint="use a newer safetake"
    )


def ask_live(config: SourceConfig, asking: Asking) -> Asked:
    """Put the questions about soundness to the live store that a section describes.

    Never raises for what it finds. Run it where it can be ended: damaged stores crash and hang.
    """
    if config.type == "sqlite":
        from safetake.sources.sqlite.soundness import ask as ask_sqlite

        return ask_sqlite(config, asking)
    if config.type == "chroma":
        from safetake.sources.chroma.soundness import ask as ask_chroma

        return ask_chroma(config, asking)
    if config.type == "redis":
        from safetake.sources.redis.soundness import ask as ask_redis

        return ask_redis(config, asking)
    from safetake.sources.files.soundness import ask as ask_files

    return ask_files(config, asking)
