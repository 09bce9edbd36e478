"""From the disaster on: what is taken away is gone, and the twin has what is left.

In the drill's own process. `strike` lets the kernel hide what was lost and changes the twin's
configuration for the one that knows only what is left; then it tries to read what is hidden,
because a loss that is not real proves nothing.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

from safetake import sandbox

AFTER = "after-"
"""What the names of files begin with that the twin gets with the disaster."""
CONFIGS = ("safetake.toml", "safetake-servers.toml")
PASSWORD_FILE = "password"

_TRIES = 1000


class Aftermath:
    """What `drill.run` wrote of it into the plan."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self._folder = folder
        self.without: list[str] = told["without"]
        self.snapshot: str = told["snapshot"]
        self.location: str = told["location"]
        self.other: bool = told["other"]
        """Whether that snapshot holds something else than what was there."""
        self._hidden = {what: Path(path) for what, path in told["hidden"].items()}
        self.gone: str = told["gone"]
        self._texts: dict[str, str] = {}

    @property
    def machine(self) -> bool:
        """Whether only the kit is left."""
        return "machine" in self.without

    @property
    def password(self) -> str:
        """The one that is left."""
        return self.password_file.read_text(encoding="utf-8")

    @property
    def password_file(self) -> Path:
        """The file with the password that is left."""
        return self._folder / (AFTER + PASSWORD_FILE)

    @property
    def config(self) -> str:
        """The configuration that knows what is left, before it is the only one."""
        return AFTER + CONFIGS[0]

    def strike(self) -> list[tuple[str, bool, str, str]]:
        """Take it all away; each check as name, good, expected, found. Raises SafetakeError."""
        if not self.without:
            return []
        (self._folder / PASSWORD_FILE).unlink()
        for name in CONFIGS:
            if self.machine:
                self._texts[name] = (self._folder / (AFTER + name)).read_text(encoding="utf-8")
                (self._folder / (AFTER + name)).unlink()
                (self._folder / name).unlink()
            else:
                (self._folder / (AFTER + name)).rename(self._folder / name)
        found = []
        if self._hidden:
            sandbox.hide(self._hidden.values(), [self._folder])
        for what, path in self._hidden.items():
            said = read_somewhere(path)
            found.append((f"{what} is out of reach", not said, "nothing can be read", said or
                          "nothing can be read"))  # fmt: skip
        return found

    def give_back(self) -> None:
        """A configuration again, once the kit has done its work: for what judges it."""
        for name, text in self._texts.items():
            (self._folder / name).write_text(text, encoding="utf-8")

    def newest(self, there: bool) -> tuple[str, str, bool, str, str]:
        """The check of a newest snapshot that is lost, and is listed or not."""
        found = "it is listed" if there else "not listed"
        return (f"the newest snapshot {self.gone[:8]} is gone", "", not there, "not listed", found)


def read_somewhere(path: Path) -> str:
    """Which file at or below a path can be read, of the first so many; empty when none can."""
    below = (Path(top) / name for top, _, names in os.walk(path) for name in names)
    for name in islice(below, _TRIES) if path.is_dir() else [path]:
        try:
            with name.open("rb") as file:
                file.read(1)
        except OSError:
            continue
        return f"{name} can be read"
    return ""
