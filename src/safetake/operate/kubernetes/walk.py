"""Every value of a configuration with its place in the file: what a pod needs is found by asking
all of it, so that a key that is added later is not forgotten here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Value:
    """A leaf of the configuration."""

    loc: tuple[str, ...]
    value: Any

    @property
    def key(self) -> str:
        """The last word of its place."""
        return self.loc[-1]

    @property
    def where(self) -> str:
        """Its place, as messages name it."""
        return ".".join(self.loc)


def values(section: BaseModel, *, without: tuple[str, ...] = ()) -> Iterator[Value]:
    """All leaves that are set; lists and plain dictionaries are leaves. `without`: sections."""
    for name, field in type(section).model_fields.items():
        if name not in without:
            yield from _below((field.alias or name,), getattr(section, name))


def _below(loc: tuple[str, ...], value: Any) -> Iterator[Value]:
    if isinstance(value, BaseModel):
        for inner in values(value):
            yield Value((*loc, *inner.loc), inner.value)
    elif isinstance(value, Mapping) and any(isinstance(each, BaseModel) for each in value.values()):
        for key, each in value.items():
            yield from _below((*loc, str(key)), each)
    elif value is not None:
        yield Value(loc, value)


def raw(data: Any, loc: tuple[str, ...]) -> Any:
    """What the file itself says at a place; None where it says nothing."""
    for part in loc:
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data
