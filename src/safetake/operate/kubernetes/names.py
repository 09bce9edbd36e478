"""Names of objects and volumes: what Kubernetes allows, made of names that allow more.

A name that had to be changed bears a piece of its hash, so that two never become one.
"""

from __future__ import annotations

import hashlib
import re

CRONJOB = 52
"""Characters of a CronJob's name, at most: its Jobs add eleven (API reference)."""
LABEL = 63

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def object_name(base: str, name: str, limit: int = LABEL) -> str:
    """`base-name`, at most `limit` characters, a label of the DNS."""
    wanted = f"{base}-{name}".lower()
    if len(wanted) <= limit and _LABEL.fullmatch(wanted):
        return wanted
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]
    plain = re.sub(r"[^a-z0-9]+", "-", wanted)[: limit - 7].strip("-")
    return f"{plain}-{mark}"
