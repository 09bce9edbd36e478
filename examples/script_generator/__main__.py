"""`python -m script_generator COMMAND`: make the stores, run a service, write load, compare."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from .errors import ApplicationError
from .settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code: 0 well, 1 failed, 2 wrong usage, 3 differs."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ApplicationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script_generator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    settings = argparse.ArgumentParser(add_help=False)
    for flag in (
        "--database-url",
        "--chroma-path",
        "--redis-url",
        "--scripts-dir",
        "--project-service-url",
        "--generation-service-url",
    ):
        settings.add_argument(flag, help=f"default: ${flag[2:].replace('-', '_').upper()}")
    settings.add_argument("--cache-seconds", type=int, help="default: $CACHE_SECONDS")

    init = commands.add_parser("init", parents=[settings], help="make the four stores, once")
    init.add_argument("--journal-mode", choices=("wal", "delete"), default="wal", help="of SQLite")
    init.add_argument("--sync-threshold", type=int, default=1000, help="of Chroma's index files")
    init.set_defaults(run=_init)

    for name, port in (("project-service", 8001), ("generation-service", 8002)):
        service = commands.add_parser(name, parents=[settings], help=f"run it on :{port}")
        service.add_argument("--host", default="127.0.0.1")
        service.add_argument("--port", type=int, default=port)
        service.set_defaults(run=_serve, service=name)

    load = commands.add_parser("load", parents=[settings], help="write, and remember what was done")
    load.add_argument("--journal", type=Path, required=True, help="append-only JSON lines")
    load.add_argument("--workers", type=int, default=4)
    load.add_argument("--seconds", type=float, help="default: until SIGTERM or SIGINT")
    load.add_argument("--count", type=int, help="stop after so many scripts")
    load.add_argument("--pause", type=float, default=0.0, help="seconds after each script")
    load.add_argument("--direct", action="store_true", help="the stores, services being stopped")
    load.set_defaults(run=_load)

    compare = commands.add_parser("compare", help="judge a restored folder by a journal")
    compare.add_argument("--restored", type=Path, required=True)
    compare.add_argument("--journal", type=Path, required=True)
    compare.add_argument("--cut-start-ns", type=int, required=True, help="as time.time_ns()")
    compare.add_argument("--cut-end-ns", type=int, required=True)
    compare.add_argument("--redis-server", type=Path, help="default: the wheel's, else PATH")
    compare.set_defaults(run=_compare)

    read = commands.add_parser("read-vectors", help="(used by compare) dump a scratch copy")
    read.add_argument("folder", type=Path)
    read.add_argument("out", type=Path)
    read.set_defaults(run=_read_vectors)
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    names = Settings.__dataclass_fields__
    return Settings.load(**{name: getattr(options, name) for name in names})


def _init(options: argparse.Namespace) -> int:
    from . import projects, scripts, vectors
    from .jobs import JobStore

    settings = _settings(options)
    JobStore(settings.redis_url).create()
    projects.create(settings.database_path, options.journal_mode)
    scripts.create(Path(settings.scripts_dir))
    vectors.create(Path(settings.chroma_path), options.sync_threshold)
    return 0


def _serve(options: argparse.Namespace) -> int:
    import uvicorn

    from . import generation_service, project_service
    from .web import KEEP_ALIVE

    services = {"project-service": project_service, "generation-service": generation_service}
    uvicorn.run(
        services[options.service].application(_settings(options)),
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
    )
    return 0


def _load(options: argparse.Namespace) -> int:
    from .load import Driver, Services, Stores

    settings = _settings(options)
    driver = Driver(
        Stores(settings) if options.direct else Services(settings),
        options.journal,
        workers=options.workers,
        seconds=options.seconds,
        count=options.count,
        pause=options.pause,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: driver.stop())
    _print(driver.run().as_dict())
    return 0


def _compare(options: argparse.Namespace) -> int:
    from .compare import Cut, compare

    cut = Cut(options.cut_start_ns, options.cut_end_ns)
    result = compare(options.restored, options.journal, cut, redis_server=options.redis_server)
    _print(result.as_dict())
    for problem in result.problems()[:20]:
        print(f"differs: {problem}", file=sys.stderr)
    return 0 if result.ok else 3


def _read_vectors(options: argparse.Namespace) -> int:
    from .restored import write_vectors

    write_vectors(options.folder, options.out)
    return 0


def _print(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
