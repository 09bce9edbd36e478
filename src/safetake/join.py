#!/usr/bin/env python3
"""Puts files that safetake stored as columns back together: python3 join.py FOLDER

A folder NAME.parts that holds a layout.json becomes the file NAME beside it, byte for byte the
original, with its mode and time; then the parts go. Needs Python 3.8 or newer and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any


def check(layout: Any) -> int:
    """The bytes after the last whole record; ValueError unless all names and numbers agree."""
    if not isinstance(layout, dict) or layout.get("version") != 1:
        raise ValueError("not a layout of version 1")
    numbers: list[Any] = [
        layout.get(key) for key in ("size", "record", "records", "mode", "mtime_ns")
    ]
    columns, tail, end = layout.get("columns"), layout.get("tail"), 0
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a number of the layout is missing or wrong")
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        raise ValueError("the columns of the layout are missing")
    names = [column.get("file") for column in columns] + ([] if tail is None else [tail])
    for name in names:
        bad = not isinstance(name, str) or name in ("", ".", "..", "layout.json")
        if bad or any(char in name for char in "/\\\0") or names.count(name) > 1:
            raise ValueError(f"{name!r} is no plain name of one part")
    for column in columns:
        width = column.get("width")
        if type(width) is not int or width < 1 or column.get("offset") != end:
            raise ValueError("the columns of the layout do not follow one another")
        end += width
    rest: int = numbers[0] - numbers[1] * numbers[2]
    if not 0 < end == numbers[1] or numbers[2] < 1 or rest < 0 or (rest > 0) != (tail is not None):
        raise ValueError("the sizes of the layout do not agree")
    return rest


def join(parts: Path, target: Path) -> None:
    """Put `target` in place out of the folder `parts`; ValueError if the parts do not fit."""
    layout = json.loads((parts / "layout.json").read_bytes())
    rest = check(layout)
    widths = [column["width"] for column in layout["columns"]]
    sizes = {column["file"]: column["width"] * layout["records"] for column in layout["columns"]}
    sizes.update({layout["tail"]: rest} if rest else {})
    for name, size in sizes.items():
        part = parts / name
        if part.is_symlink() or not part.is_file() or part.stat().st_size != size:
            raise ValueError(f"{part} is not a file of {size} bytes")
    half, digest = target.with_name(target.name + ".joining"), hashlib.sha256()
    if half.is_symlink() or half.exists():
        half.unlink()
    rows = max(1, (4 << 20) // layout["record"])
    files = [(parts / name).open("rb") for name in sizes]
    try:
        with half.open("xb") as out:
            for first in range(0, layout["records"], rows):
                count = min(rows, layout["records"] - first)
                blocks = [files[i].read(count * width) for i, width in enumerate(widths)]
                pairs = [(block, widths[i]) for i, block in enumerate(blocks)]
                pieces = [b[r * w : r * w + w] for r in range(count) for b, w in pairs]
                out.write(b"".join(pieces))
                digest.update(b"".join(pieces))
            for block in iter(lambda: files[-1].read(1 << 20) if rest else b"", b""):
                out.write(block)
                digest.update(block)
            if out.tell() != layout["size"] or layout.get("sha256", "") not in (
                "",
                digest.hexdigest(),
            ):
                raise ValueError(f"{target} did not come out as the file that was stored")
            out.flush()
            half.chmod(layout["mode"] & 0o7777)
            os.utime(half, ns=(layout["mtime_ns"], layout["mtime_ns"]))
            os.fsync(out.fileno())
        half.replace(target)
    finally:
        for file in files:
            file.close()


def places(folder: Path) -> list[Path]:
    """Where parts can be: the manifest beside this script names the sources that have any."""
    script = globals().get("__file__")
    manifest = Path(script).with_name("manifest.json") if script else None
    if manifest is None or not manifest.is_file():
        return [folder]
    sources = json.loads(manifest.read_bytes())["sources"].items()
    split = [name for name, entry in sources if entry.get("type") == "chroma"]
    found = [folder / name for name in split if (folder / name).is_dir()]
    return found or ([folder] if folder.resolve().name in split else [])


def main(folder: Path) -> None:
    """Join everything below `folder` that a Chroma source stored in parts."""
    for base, names, _ in (step for place in places(folder) for step in os.walk(place)):
        for name in [n for n in names if n.endswith(".parts") and n != ".parts"]:
            parts = Path(base, name)
            if not parts.is_symlink() and (parts / "layout.json").is_file():
                join(parts, parts.with_suffix(""))
                fd = os.open(base, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
                shutil.rmtree(parts)
                names.remove(name)
                print("joined", parts.with_suffix(""))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except (OSError, ValueError, KeyError, RecursionError) as problem:
        sys.exit(f"join.py: {problem}")
