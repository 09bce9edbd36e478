"""Finds, reads and checks the configuration file; every mistake is one line that names the place.

A mistake is a `ConfigError` with the file, the key and, where one is near, the right word. What the
file holds as a value is never repeated in a message: it may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from safetake.config import (
    ChromaConfig,
    Config,
    FilesConfig,
    RedisConfig,
    SqlCheck,
    SqliteConfig,
)
from safetake.configplace import VARIABLE as VARIABLE
from safetake.configplace import find as find
from safetake.errors import ConfigError
from safetake.wording import nearest, printable

TYPES: dict[str, type[BaseModel]] = {
    "sqlite": SqliteConfig,
    "chroma": ChromaConfig,
    "redis": RedisConfig,
    "files": FilesConfig,
}


def load(path: Path) -> Config:
    """Read and check the file. Raises ConfigError, one line for each mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start})") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Check the text of the file `path`, whose folder relative paths start from.

    Raises ConfigError.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid TOML: nested too deep") from error
    try:
        return Config.model_validate(data, context={"base": path.absolute().parent})
    except ValidationError as error:
        mistakes = [_word(item, data) for item in error.errors(include_url=False)]
        raise ConfigError(
            "\n".join(f"{path}: {printable(mistake)}" for mistake in mistakes),
            hint="docs/reference/config.md lists every key",
        ) from None


def _word(error: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """One mistake of pydantic's, in our words, without any value of the file."""
    loc = [part for part in error["loc"] if part != "[key]"]
    if len(loc) > 2 and loc[0] == "sources" and loc[2] in TYPES:
        tag = str(loc.pop(2))
    else:
        tag = ""
    where = ".".join(str(part) for part in loc)
    kind: str = error["type"]
    if kind == "extra_forbidden":
        return _unknown(where, loc, tag)
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "union_tag_not_found":
        near = difflib.get_close_matches("type", map(str, _value(data, loc)), n=1)
        meant = f"; {near[0]!r} is no key, did you mean 'type'?" if near else ""
        return f"{where}.type: is missing (one of {', '.join(TYPES)}){meant}"
    if kind == "union_tag_invalid":
        found = str(error["ctx"]["tag"])
        return f"{where}.type: there is no such type" + nearest(found, TYPES)
    if kind == "literal_error":
        return f"{where}: must be one of {error['ctx']['expected']}"
    if kind == "string_pattern_mismatch":
        field = _section(loc, tag).model_fields.get(str(loc[-1]))
        return f"{where}: is not in the right form: {field.description if field else ''}"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {message}" if where else message


def _unknown(where: str, loc: list[Any], tag: str) -> str:
    key, section = str(loc[-1]), _section(loc, tag)
    return f"{where}: unknown key" + nearest(key, section.model_fields)


def _section(loc: list[Any], tag: str) -> type[BaseModel]:
    """The model that the key at `loc` was put into."""
    if loc[0] == "sources" and len(loc) > 2:
        return SqlCheck if "checks" in loc[2:-1] else TYPES[tag]
    model: type[BaseModel] = Config
    for part in loc[:-1]:
        names = {field.alias or name: field for name, field in model.model_fields.items()}
        if part in names:  # else a name that the user gave, or an item's number
            model = _model(names[part].annotation) or model
    return model


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model inside `X`, `X | None`, `list[X]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model(part) for part in get_args(annotation)]
    return next((model for model in inner if model is not None), None)


def _value(data: Any, loc: list[Any]) -> Any:
    for part in loc:
        data = data[part]
    return data
