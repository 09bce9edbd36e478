"""Where evidence is kept: sealed documents of the repository, each following those before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from safetake.errors import DamagedError
from safetake.evidence.document import Draft, Evidence, finished, parse

if TYPE_CHECKING:
    from safetake.repository import Repository


def save(repository: Repository, draft: Draft) -> Evidence:
    """Keep it, durably, after all that is there. Raises StorageError, DamagedError.

    What is damaged is not followed: `verify_chain` names it, and it keeps nobody from adding.
    """
    kept, _ = _read(repository)
    document = finished(draft, heads(kept.values()))
    repository.save_document("evidence", {"evidence": document.canonical().decode("ascii")})
    return document


def load_all(repository: Repository) -> list[Evidence]:
    """All that can be read, the oldest first."""
    kept, _ = _read(repository)
    return sorted(kept.values(), key=lambda one: (one.ended_ns, one.started_ns, one.id))


def heads(documents: Iterable[Evidence]) -> list[str]:
    """Those that no other follows."""
    all_of_them = list(documents)
    followed = {before for one in all_of_them for before in one.previous}
    return sorted({one.id for one in all_of_them} - followed)


def verify_chain(repository: Repository, known: Iterable[str] = ()) -> list[str]:
    """What is wrong: changed, damaged or missing documents, by name. `known` are ids that must be
    there, because somebody wrote them down (the history does).

    The end of the chain can be cut off unseen where nobody has written down its newest id.
    """
    kept, problems = _read(repository)
    wanted = {before: one.id for one in kept.values() for before in one.previous}
    for before, after in sorted(wanted.items()):
        if before not in kept:
            problems.append(f"evidence {before[:8]} is missing: {after[:8]} follows it")
    for known_id in sorted(set(known) - set(kept) - set(wanted)):
        problems.append(f"evidence {known_id[:8]} is missing: the history names it")
    return problems


def _read(repository: Repository) -> tuple[dict[str, Evidence], list[str]]:
    kept: dict[str, Evidence] = {}
    problems: list[str] = []
    for name in sorted(name for name, _ in repository.storage.list("evidence")):
        try:
            stored = repository.load_document("evidence", name)
            text = stored["evidence"]
            document = parse(text.encode("ascii"))
        except FileNotFoundError:
            continue  # removed since the listing
        except DamagedError as error:
            problems.append(str(error))
        except (KeyError, AttributeError, UnicodeEncodeError):
            problems.append(f"evidence/{name} is damaged: no evidence")
        else:
            kept[document.id] = document
    return kept, problems
