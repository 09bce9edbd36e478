"""`python -m bench`: one entry for every measurement."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SMALL = 0.01


def main(arguments: list[str] | None = None) -> int:
    """Run what the words say; prints a table and writes JSON into bench/results."""
    from bench.command import BenchError

    chosen = _parser().parse_args(arguments)
    scale = SMALL if chosen.small else chosen.scale
    work: Path = chosen.data.resolve()
    results: Path = chosen.results.resolve()
    try:
        return _run(chosen, work, results, scale)
    except BenchError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="compare",
        choices=[
            "compare",
            "generate",
            "query",
            "rows",
            "files",
            "barrier",
            "startup",
            "soak",
            "drills",
            "prune",
        ],
    )
    parser.add_argument("--data", type=Path, default=HERE / "data", help="scratch, up to 20 GB")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 2.1 GB")
    parser.add_argument("--small", action="store_true", help=f"scale {SMALL}: a smoke test")
    parser.add_argument(
        "--rounds", type=int, default=0, help="compare: 3, barrier: 20, startup: 15, prune: 3"
    )
    parser.add_argument("--minutes", type=float, default=0, help="soak: 30, drills: 60")
    parser.add_argument("--every", type=int, default=5, help="drills: minutes between them")
    parser.add_argument("--priority", choices=["low", "normal"], default="low", help="of drills")
    parser.add_argument("--big", action="store_true", help="rows: 5 GB instead of 1M rows")
    parser.add_argument(
        "--damage", default="runs", choices=["runs", "apart", "scattered"], help="rows --big: how"
    )
    parser.add_argument("--tools", default="safetake,restic,borg,tar,cp")
    parser.add_argument("--verify", action="store_true", help="compare restored bytes as well")
    return parser


def _run(chosen: argparse.Namespace, work: Path, results: Path, scale: float) -> int:
    if chosen.what == "generate":
        from bench.compare import dataset

        work.mkdir(parents=True, exist_ok=True)
        print(dataset(work, scale))
        return 0
    if chosen.what == "compare":
        from bench import compare

        result = compare.compare(
            work,
            scale=scale,
            rounds=chosen.rounds or (1 if chosen.small else 3),
            names=[name for name in str(chosen.tools).split(",") if name],
            verify=chosen.verify or chosen.small,
        )
        print(compare.table(result))
        compare.write(result, results / "compare.json")
        return 0
    if chosen.what == "query":
        from bench.query import measure as measure_query

        answer = measure_query(work, scale)
    elif chosen.what == "rows":
        from bench.rows import measure as measure_rows

        answer = measure_rows(work, scale, chosen.big, chosen.damage)
    elif chosen.what == "files":
        from bench.files import measure as measure_files

        answer = measure_files(work, scale)
    elif chosen.what == "prune":
        from bench.prune import measure as measure_prune

        answer = measure_prune(work, scale, chosen.rounds or (1 if chosen.small else 3))
    elif chosen.what == "barrier":
        from bench.barrier import measure as measure_barrier

        answer = measure_barrier(work, scale, chosen.rounds or (3 if chosen.small else 20))
    elif chosen.what == "soak":
        from bench.soak import measure as measure_soak

        answer = measure_soak(work, 3 if chosen.small else chosen.minutes or 30)
    elif chosen.what == "drills":
        from bench import drills

        minutes, every = (3, 1) if chosen.small else (chosen.minutes or 60, chosen.every)
        answer = drills.measure(work, minutes, every, chosen.priority)
        print(drills.table(answer))
    else:
        from bench.startup import measure as measure_startup

        answer = measure_startup(chosen.rounds or 15)
    text = json.dumps(answer, indent=1)
    print(text)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{chosen.what}.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
