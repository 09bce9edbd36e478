"""What has to be told about a run: each reason once, with how many and the first names."""

from __future__ import annotations


class Told:
    """Reasons and the paths that they concern; bounded, however many there are."""

    def __init__(self, names: int) -> None:
        self._names = names
        self._reasons: dict[str, tuple[int, list[str]]] = {}

    def add(self, reason: str, path: str) -> None:
        """Note that `reason` holds for `path`."""
        count, names = self._reasons.get(reason, (0, []))
        if len(names) < self._names:
            names.append(path if path.isprintable() else ascii(path))
        self._reasons[reason] = (count + 1, names)

    def lines(self) -> list[str]:
        """One line for each reason."""
        lines = []
        for reason, (count, names) in self._reasons.items():
            more = f" and {count - len(names)} more" if count > len(names) else ""
            lines.append(f"{', '.join(names)}{more}: {reason}")
        return lines
