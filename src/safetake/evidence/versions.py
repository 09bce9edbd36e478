"""What was at work when evidence was found."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable

from safetake import __version__

LIBRARIES = ("apsw", "backports.zstd", "chromadb", "cryptography", "redis")


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of safetake, Python, the system and of those libraries that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {
        "safetake": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def place() -> tuple[str, str]:
    """(host, user) of this process."""
    import getpass

    from safetake.hostname import host_name

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no name for this number, as in containers
        user = str(os.getuid())
    return host_name(), user
