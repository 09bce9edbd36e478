"""Our whole command beside restic, borg, tar | zstd and cp, interleaved in one run, warm cache.

In each round all tools take a full backup of the same data, then another of the unchanged data;
the data are changed once (`mutate`), and all tools take an increment, check everything, and
restore the first and the last snapshot. The order of the tools turns by one in each round. Ratios
within one run hold; absolute seconds are the machine's.
"""

from __future__ import annotations

import filecmp
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.command import BenchError, Run, remove, run, size_mb, warm
from bench.generate import NEXT_DUMP, Shape, generate
from bench.mutate import mutate
from bench.tools import SOURCES, TOOLS, Tool, available, make_template

STEPS = ("full", "nothing", "increment", "check", "restore first", "restore last")


def compare(
    work: Path, *, scale: float, rounds: int, names: list[str], verify: bool
) -> dict[str, Any]:
    """Run everything; returns medians, ratios and every single figure. Raises BenchError."""
    work.mkdir(parents=True, exist_ok=True)
    pristine = dataset(work, scale)
    live, target = work / "live", work / "restored"
    template = make_template(work)
    names = available(names)
    tools: dict[str, Tool] = {name: TOOLS[name](live, work, template) for name in names}
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in names}

    def note(name: str, step: str, value: float) -> None:
        figures[name].setdefault(step, []).append(round(value, 3))

    def measured(name: str, step: str, done: Run | None) -> None:
        if done is not None:
            note(name, step, done.seconds)
            note(name, f"{step}: cpu s", done.cpu_seconds)
            note(name, f"{step}: peak MB", done.peak_mb)
            print(f"  {name:<10} {step:<14} {done.seconds:8.2f} s", file=sys.stderr, flush=True)

    try:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            turn = number % len(names)
            order = names[turn:] + names[:turn]
            remove(live)
            run(["cp", "-a", pristine / "data", live])
            for name in order:
                tools[name].init()
            _settle()
            for name in order:
                before = tools[name].size_mb()
                warm(live)
                measured(name, "full", tools[name].backup())
                note(name, "full: stored MB", tools[name].size_mb() - before)
            for name in order:
                before = tools[name].size_mb()
                warm(live)
                measured(name, "nothing", tools[name].backup())
                note(name, "nothing: stored MB", tools[name].size_mb() - before)
            mutate(live, pristine / NEXT_DUMP, seed=100 + number)
            _settle()
            for name in order:
                before = tools[name].size_mb()
                warm(live)
                measured(name, "increment", tools[name].backup())
                note(name, "increment: stored MB", tools[name].size_mb() - before)
            for name in order:
                os.sync()
                measured(name, "check", tools[name].check())
            for step, which in (("restore first", 0), ("restore last", 2)):
                for name in order:
                    remove(target)
                    os.sync()
                    measured(name, step, tools[name].restore(which, target))
                    if verify and which == 2:
                        _same(live, target, name)
            remove(target)
    finally:
        for tool in tools.values():
            tool.close()
        for path in (live, target, work / "restic-cache", work / "safetake.toml"):
            remove(path)
        if template is not None:
            remove(template)
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "scale": scale,
        "rounds": rounds,
        "dataset_mb": round(size_mb(pristine / "data"), 1),
        "parts_mb": {name: round(size_mb(pristine / "data" / name), 1) for name in SOURCES},
        "medians": {
            name: {step: round(statistics.median(values), 3) for step, values in steps.items()}
            for name, steps in figures.items()
        },
        "figures": figures,
    }


def dataset(work: Path, scale: float) -> Path:
    """The generated data, made once for each scale and kept."""
    pristine = work / f"pristine-{scale:g}"
    if not pristine.is_dir():
        print(f"generating the dataset in {pristine}", file=sys.stderr, flush=True)
        unfinished = work / "unfinished"
        remove(unfinished)
        generate(unfinished, Shape.of(scale))
        unfinished.rename(pristine)
    return pristine


def _settle() -> None:
    """Change times of this very moment make every tool read a file again: let it pass."""
    os.sync()
    time.sleep(1.1)


def _same(live: Path, target: Path, name: str) -> None:
    """Compare a restored copy with the data, byte by byte. Raises BenchError."""
    for part in SOURCES:
        places = [path for path in target.rglob(part) if path.is_dir()]
        copy = min(places, key=lambda path: len(path.parts), default=None)
        if copy is None:
            raise BenchError(f"{name} restored no {part}")
        for path in (live / part).rglob("*"):
            other = copy / path.relative_to(live / part)
            if path.is_file() and not (
                path.name.endswith(("-wal", "-shm")) or filecmp.cmp(path, other, shallow=False)
            ):
                raise BenchError(f"{name} restored {other}, which differs from {path}")


def table(result: dict[str, Any]) -> str:
    """Medians and ratios to restic, for people."""
    medians = result["medians"]
    names = list(medians)
    width = 11
    lines = [
        f"dataset {result['dataset_mb']} MB {result['parts_mb']}, {result['rounds']} round(s), "
        f"{result['machine']}",
        "",
        f"{'median':<24}" + "".join(f"{name:>{width}}" for name in names),
    ]

    def row(label: str, key: str, unit: str) -> None:
        cells = []
        for name in names:
            value = medians[name].get(key)
            cells.append(f"{'–' if value is None else format(value, '.2f'):>{width}}")
        lines.append(f"{label + ', ' + unit:<24}" + "".join(cells))

    for step in STEPS:
        row(step, step, "s")
    for step in ("full", "increment", "nothing"):
        row(f"{step} stored", f"{step}: stored MB", "MB")
    for name in names:
        peaks = [value for key, value in medians[name].items() if key.endswith(": peak MB")]
        medians[name]["peak MB"] = max(peaks, default=0.0)
    row("peak memory", "peak MB", "MB")
    if "restic" in medians and "safetake" in medians:
        lines += ["", "safetake to restic (times as fast; share of what is stored):"]
        for step in STEPS:
            lines.append(f"  {step:<22}{_ratio(medians, step, inverse=True)}")
        lines.append(f"  {'increment stored':<22}{_ratio(medians, 'increment: stored MB')}")
    return "\n".join(lines)


def _ratio(medians: dict[str, dict[str, float]], key: str, *, inverse: bool = False) -> str:
    ours, theirs = medians["safetake"].get(key), medians["restic"].get(key)
    if not ours or not theirs:
        return "–"
    return f"{theirs / ours:.2f}×" if inverse else f"{ours / theirs:.3f}"


def write(result: dict[str, Any], path: Path) -> None:
    """Keep everything, for later comparisons."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
