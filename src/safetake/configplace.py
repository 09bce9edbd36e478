"""Where the configuration file is: found without reading it, and without importing pydantic."""

from __future__ import annotations

import os
from pathlib import Path

from safetake.errors import ConfigError

VARIABLE = "SAFETAKE_CONFIG"
_KIT = "after a loss the recovery kit says what to write"
PLACES = (Path("safetake.toml"), Path("/etc/safetake/safetake.toml"))


def find(given: Path | None = None) -> Path:
    """The file to use: `given`, else $SAFETAKE_CONFIG, else the first of PLACES that exists.

    Raises ConfigError when there is none.
    """
    if given is None and os.environ.get(VARIABLE):
        given = Path(os.environ[VARIABLE])
    if given is not None:
        if not os.path.exists(given):  # noqa: PTH110 - Path.exists raises where it may not look
            raise ConfigError(
                f"there is no configuration file {given}",
                hint=f"`safetake init` writes one; {_KIT}",
            )
        return given
    for place in PLACES:
        if os.path.exists(place):  # noqa: PTH110
            return place
    raise ConfigError(
        "no configuration file: neither ./safetake.toml nor /etc/safetake/safetake.toml exists",
        hint=f"name it with --config FILE or ${VARIABLE}; `safetake init` writes one; {_KIT}",
    )
