"""Documents as TOML: tables, lists of tables, strings, numbers and truth values, and nothing else.

What the standard library reads and does not write. None is left out, since TOML has no such value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml(document: Mapping[str, Any], prefix: str = "") -> str:
    """The document; `prefix` names the table that it is."""
    plain, tables = [], []
    for key, value in document.items():
        if isinstance(value, Mapping):
            tables.append((key, value))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            items = ", ".join("{" + _inline(item) + "}" for item in value)
            plain.append(f"{_key(key)} = [{items}]")
        elif value is not None:
            plain.append(f"{_key(key)} = {_scalar(value)}")
    lines = [f"[{prefix}]"] if prefix and plain else []
    lines += plain
    for key, value in tables:
        lines.append(toml(value, f"{prefix}.{_key(key)}" if prefix else _key(key)))
    return "\n".join(filter(None, lines)) + "\n"


def _inline(item: Mapping[str, Any]) -> str:
    return ", ".join(f"{_key(k)} = {_scalar(v)}" for k, v in item.items() if v is not None)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _scalar(key)


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
