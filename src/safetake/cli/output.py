"""Everything that is printed: results on stdout, all else on stderr.

With --json a command prints exactly one document. Tables are aligned text, and text for people is
broken between words; on a terminal both keep to its width. Colour is for terminals only and honours
NO_COLOR.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, TextIO

from safetake.wording import printable

_STYLES = re.compile("\x1b\\[[0-9;]*m")
_TEXT, _LAST = 19, 10
"""Columns to which the texts of a table, and its last one, are cut at most."""


class Closed(Exception):
    """Whoever read our standard output went away."""


def write(text: str) -> None:
    """One piece of text to stdout, undecodable names as they are. Raises Closed."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # of a terminal that was closed: EIO
            raise
        raise Closed from error


def line(text: str = "") -> None:
    """One line to stdout. Raises Closed."""
    write(text + "\n")


def document(value: Any) -> None:
    """The one JSON document of a command; keys as given. Raises Closed."""
    write(json.dumps(value, ensure_ascii=True, indent=2) + "\n")


def note(text: str, *, whole: bool = False) -> None:
    """One line to stderr, for people, `wrapped` on a terminal unless it must stay `whole`.

    When nobody reads it any more (a pipe or a terminal was closed) or it cannot be written (a full
    disk), the work goes on: a restore must not end half-way for want of words.
    """
    if sys.stderr.isatty() and not whole:
        text = "\n".join(wrapped(each, columns()) for each in text.split("\n"))
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # what is left in the buffer must not fail at the exit, and end a good run with code 120
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def coloured(stream: TextIO) -> bool:
    """Whether colour is wanted on the stream (see no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, code: str, stream: TextIO | None = None) -> str:
    """The text in an ANSI style (`1` bold, `31` red, `32` green, `33` yellow), where wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(stream or sys.stdout) else text


def print_error(message: str, hint: str, code: int, as_json: bool) -> None:
    """How every failure ends: `error:` and `hint:` on stderr, or one document on stdout."""
    if as_json:
        document({"error": {"message": message, "hint": hint, "exit_code": code}})
        return
    note(style("error:", "1;31", sys.stderr) + " " + printable_lines(message))
    if hint:
        note(style("hint:", "1", sys.stderr) + " " + printable_lines(hint))


def printable_lines(text: str) -> str:
    """Like `printable`, keeping line breaks."""
    return "\n".join(printable(part) for part in text.split("\n"))


def width(text: str) -> int:
    """Columns of a terminal: wide characters (Korean, Chinese, Japanese) take two, styles none."""
    text = _STYLES.sub("", text)
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, columns: int) -> str:
    """The text in at most so many columns, `…` where something is missing."""
    if width(text) <= columns:
        return text
    kept, used = [], 1
    for c in text:
        used += width(c)
        if used > columns:
            break
        kept.append(c)
    return "".join(kept).rstrip("…") + "…"


def columns() -> int:
    """How wide the terminal is; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def wrapped(text: str, columns: int = 80) -> str:
    """The text in lines of so many columns, broken between words only; those after the first are
    set in. A command in backticks stays in one line, so that it can be copied.
    """
    if width(text) <= columns:
        return text
    plain = text.lstrip(" ")
    indent = " " * (len(text) - len(plain))
    first, *words = commands_whole(plain).split(" ")
    lines = [indent + first]
    for word in words:
        if width(lines[-1]) + 1 + width(word) > columns:
            lines.append(f"{indent}  {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines).replace("\0", " ")


def commands_whole(text: str) -> str:
    """The text with `\\0` for each space of a command in backticks."""
    return re.sub(r"`[^`\n]*`", lambda found: found[0].replace(" ", "\0"), text)


def paragraph(text: str) -> None:
    """One line of any length to stdout, `wrapped` on a terminal. Raises Closed."""
    line(wrapped(text, columns()) if sys.stdout.isatty() else text)


def _narrow(widths: list[int], right: Sequence[int], limit: int) -> None:
    """Make a table fit: its last text gives way first, then the widest; never a number, which
    would be another one.
    """
    excess = sum(widths) + 2 * (len(widths) - 1) - limit
    last = len(widths) - 1
    if excess > 0 and last not in right:
        given = min(excess, max(0, widths[last] - _LAST))
        widths[last] -= given
        excess -= given
    while excess > 0:
        wide = [i for i, columns in enumerate(widths) if i not in right and columns > _TEXT]
        if not wide:
            return
        widths[max(wide, key=widths.__getitem__)] -= 1
        excess -= 1


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Aligned columns under their heads; those in `right` are numbers. Raises Closed."""
    heads = [printable(head) for head in heads]  # a query's are whatever a schema calls its columns
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(width(c) for c in column) for column in zip(heads, *cells, strict=True)]
    limit = columns() if sys.stdout.isatty() else sys.maxsize
    _narrow(widths, right, limit)

    def join(row: Sequence[str]) -> str:
        parts = []
        for i, (cell, room) in enumerate(zip(row, widths, strict=True)):
            shown = cut(cell, room)
            pad = " " * (room - width(shown))
            parts.append(pad + shown if i in right else shown + pad)
        return cut("  ".join(parts).rstrip(), limit)

    line(style(join(heads), "1"))
    for row in cells:
        line(join(row))


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line. Raises Closed."""
    columns = max((width(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        line(f"{name}{' ' * (columns - width(name))}  {printable(value)}".rstrip())
