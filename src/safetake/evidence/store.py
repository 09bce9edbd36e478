"""Where evidence is kept: sealed documents of the repository, each following those before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetake.clock import go_time
from safetake.errors import DamagedError
from safetake.evidence.document import Draft, Evidence, finished, parse

if TYPE_CHECKING:
    from safetake.repository import Repository


def save(repository: Repository, draft: Draft) -> Evidence:
    """Keep it, durably, after all that is there. Raises StorageError, DamagedError.

    What is damaged is not followed: `verify_chain` names it, and it keeps nobody from adding.
    """
    document = finished(draft, heads(_read(repository).kept.values()))
    _store(repository, document)
    return document


def load_all(repository: Repository) -> list[Evidence]:
    """All that can be read, the oldest first."""
    return sorted(_read(repository).kept.values(), key=_when)


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
    read = _read(repository)
    ids = set(known)
    named: dict[str, str] = {}
    for one in sorted(read.kept.values(), key=_when, reverse=True):
        named |= dict.fromkeys(one.previous, f"{one.id[:8]} follows it")
    missing = dict(sorted((one, how) for one, how in named.items() if one not in read.kept))
    missing |= dict.fromkeys(sorted(ids - set(read.kept) - set(named)), "the history names it")
    found = list(read.problems.values())
    found += [f"evidence {one[:8]} is missing: {how}" for one, how in missing.items()]
    lost = " or ".join(one[:8] for one in missing)
    if missing:
        found += [
            f"{file} is not in the chain: no document follows {one.id[:8]} in it ({one.kind} "
            f"{one.name}, {go_time(one.ended_ns)[:19]}Z), and the history does not name it: "
            f"{lost} was changed into it, or followed it"
            for file, one in _strangers(read, missing, ids)
        ]
        if read.problems:
            found.append(f"what cannot be read may have been {lost}: {', '.join(read.problems)}")
    return found


def copy_all(source: Repository, target: Repository) -> tuple[int, list[str]]:
    """Keep verbatim in `target` what it lacks of the source: how many, and what cannot be read.

    A document comes after those that it follows: a copy that is cut off is a whole chain, which
    the next one goes on with. What the target has of its own stays beside it, until the next
    document there follows both. Raises StorageError.
    """
    read, there = _read(source), _read(target).kept
    waiting = sorted(read.kept.values(), key=_when, reverse=True)
    done, count = set(there), 0
    while waiting:
        one = waiting[-1]
        before = [read.kept[each] for each in one.previous if each in read.kept]
        if one.id not in done and (first := [each for each in before if each.id not in done]):
            waiting += first
            continue
        waiting.pop()
        if one.id not in done:
            _store(target, one)
            done.add(one.id)
            count += 1
    return count, list(read.problems.values())


def _strangers(
    read: _Read, missing: Iterable[str], known: set[str]
) -> Iterator[tuple[str, Evidence]]:
    """Files whose document nobody follows or names, and that follows nothing that is missing.

    A document that was changed has another id, so the chain goes past it.
    """
    followers: dict[str, list[str]] = {}
    for one in read.kept.values():
        for before in one.previous:
            followers.setdefault(before, []).append(one.id)
    after: set[str] = set()
    waiting = list(missing)
    while waiting:
        new = [one for one in followers.get(waiting.pop(), []) if one not in after]
        after.update(new)
        waiting += new
    for head in heads(read.kept.values()):
        if head not in known | after:
            yield read.files[head], read.kept[head]


def _store(repository: Repository, document: Evidence) -> None:
    repository.save_document("evidence", {"evidence": document.canonical().decode("ascii")})


def _when(document: Evidence) -> tuple[int, int, str]:
    return document.ended_ns, document.started_ns, document.id


@dataclass(slots=True)
class _Read:
    """What the files of a repository hold."""

    kept: dict[str, Evidence] = field(default_factory=dict)
    """By id."""
    files: dict[str, str] = field(default_factory=dict)
    """`evidence/NAME`, by id."""
    problems: dict[str, str] = field(default_factory=dict)
    """What is wrong with a file, by `evidence/NAME`."""


def _read(repository: Repository) -> _Read:
    read = _Read()
    for name in sorted(name for name, _ in repository.storage.list("evidence")):
        file = f"evidence/{name}"
        try:
            stored = repository.load_document("evidence", name)
            document = parse(stored["evidence"].encode("ascii"))
        except FileNotFoundError:
            continue  # removed since the listing
        except DamagedError as error:
            told = str(error)
            read.problems[file] = told if told.startswith(file) else f"{file}: {told}"
        except (KeyError, AttributeError, UnicodeEncodeError):
            read.problems[file] = f"{file} is damaged: no evidence"
        else:
            read.kept[document.id] = document
            read.files[document.id] = file
    return read
