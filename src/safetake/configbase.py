"""What every section of the configuration is made of: strict frozen models, places, spans.

Relative places are relative to the file; nothing holds a password.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)


def resolve(path: Path, info: ValidationInfo) -> Path:
    """`~` is the home folder; a relative path is relative to the file; nothing else is expanded."""
    if "\0" in str(path):
        raise ValueError("holds a NUL character")
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError("there is no such home folder") from None
    base: Path | None = (info.context or {}).get("base")
    return Path(os.path.normpath(base / path)) if base is not None else path


def _without_password(url: str) -> str:
    try:
        password = urlsplit(url).password
    except ValueError:  # its message may repeat the password
        raise ValueError("is not a valid URL") from None
    if password is not None:
        raise ValueError("holds a password; a configuration file is no place for one")
    return url


def _seconds(value: Any) -> Any:
    from safetake.wording import seconds

    return seconds(value) if isinstance(value, str) else value


FilePath = Annotated[Path, AfterValidator(resolve)]
Url = Annotated[str, AfterValidator(_without_password)]
Span = Annotated[float, BeforeValidator(_seconds)]
"""Seconds, or `90s`, `15m`, `6h`, `1d`, `2w`."""


class Section(BaseModel):
    """Unknown keys are mistakes; values never change and are not repeated in errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class PasswordPlace(Section):
    """Where a password of a repository is: at most one of the three, and never the password."""

    password_file: FilePath | None = Field(
        default=None, description="file that holds the password and nothing else, mode 0600"
    )
    password_env: str | None = Field(
        default=None, description="name of the environment variable that holds the password"
    )
    password_command: str | None = Field(
        default=None, description="command that prints the password; run without a shell"
    )

    @property
    def password_ways(self) -> int:
        """How many of the three are given."""
        ways = (self.password_file, self.password_env, self.password_command)
        return sum(way is not None for way in ways)

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password_ways > 1:
            raise ValueError(
                "only one of password_file, password_env, password_command may be given"
            )
        return self
