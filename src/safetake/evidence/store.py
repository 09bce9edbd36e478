"""Where evidence is kept: sealed documents of the repository, each following those before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from safetake.clock import go_time
from safetake.errors import DamagedError
from safetake.evidence import remembered
from safetake.evidence.document import Draft, Evidence, finished, parse
from safetake.evidence.remembered import FEW, Link

if TYPE_CHECKING:
    from safetake.repository import Repository


def save(repository: Repository, draft: Draft) -> Evidence:
    """Keep it, durably, after all that is there. Raises StorageError, DamagedError.

    What never could be read is not followed: `Chain` names it, and it keeps nobody from adding. On
    a machine with a cache only the documents that are new there are read, not the whole chain.
    """
    links, _ = _links(repository)
    document = finished(draft, heads(links.values()))
    _store(repository, document)
    return document


def load_all(repository: Repository) -> list[Evidence]:
    """All that can be read, the oldest first. `each` needs no memory for all of them."""
    return sorted(each(repository), key=_when)


def each(repository: Repository, problems: dict[str, str] | None = None) -> Iterator[Evidence]:
    """Every document that can be read, one at a time, in no order. `problems` gets what is wrong
    with the files that can not, by `evidence/NAME`.
    """
    for _, document in _each(repository, {} if problems is None else problems):
        yield document


def find(repository: Repository, beginning: str) -> list[Evidence]:
    """Those whose id begins so; the newest for `latest`. Raises DamagedError when it is damaged."""
    links, _ = _links(repository)
    if beginning == "latest":
        newest = max(links, key=lambda name: (*links[name][2:], links[name].id), default=None)
        names = [] if newest is None else [newest]
    else:
        by_id = {one.id: name for name, one in links.items()}
        names = [by_id[one] for one in sorted(by_id) if beginning and one.startswith(beginning)]
    return [_load(repository, name) for name in names]


def heads(links: Iterable[Link | Evidence]) -> list[str]:
    """Those that no other follows."""
    all_of_them = list(links)
    followed = {before for one in all_of_them for before in one.previous}
    return sorted({one.id for one in all_of_them} - followed)


def verify_chain(repository: Repository, known: Iterable[str] = ()) -> list[str]:
    """What is wrong: changed, damaged or missing documents, by name. As `Chain.problems`."""
    return Chain(repository).problems(dict.fromkeys(known, "the history names it"))


class Chain(Mapping[str, Evidence]):
    """All documents by id, every one of which was read; each is read again when it is asked for."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._links: dict[str, Link] = {}
        self._names: dict[str, str] = {}
        self.failed = 0
        """How many tell of a failure."""
        self.unreadable: dict[str, str] = {}
        """What is wrong with a file, by `evidence/NAME`."""
        for name, document in _each(repository, self.unreadable):
            self.failed += document.verdict == "failed" and document.id not in self._links
            self._links[document.id] = _link(document)
            self._names[document.id] = name

    def __getitem__(self, id_: str) -> Evidence:
        return _load(self._repository, self._names[id_])

    def __contains__(self, id_: object) -> bool:
        return id_ in self._links  # nothing is read for that

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def problems(self, known: Mapping[str, str]) -> list[str]:
        """What is wrong: changed, damaged or missing documents, by name. `known` are ids that must
        be there, because somebody wrote them down, and who.

        The end of the chain can be cut off unseen where nobody has written down its newest id.
        """
        links = self._links
        named: dict[str, str] = {}
        for one in sorted(links.values(), key=lambda one: (*one[2:], one.id), reverse=True):
            named |= dict.fromkeys(one.previous, f"{one.id[:8]} follows it")
        missing = dict(sorted((one, how) for one, how in named.items() if one not in links))
        missing |= {one: known[one] for one in sorted(set(known) - set(links) - set(named))}
        found = list(self.unreadable.values())
        found += [f"evidence {one[:8]} is missing: {how}" for one, how in missing.items()]
        lost = " or ".join(one[:8] for one in missing)
        if missing:
            found += [
                f"evidence/{self._names[one.id]} is not in the chain: no document follows "
                f"{one.id[:8]} in it ({one.kind} {one.name}, {go_time(one.ended_ns)[:19]}Z), and "
                f"the history does not name it: {lost} was changed into it, or followed it"
                for one in map(self.__getitem__, self._strangers(missing, set(known)))
            ]
            if self.unreadable:
                files = ", ".join(self.unreadable)
                found.append(f"what cannot be read may have been {lost}: {files}")
        return found

    def _strangers(self, missing: Iterable[str], known: set[str]) -> Iterator[str]:
        """Documents that nobody follows or names, and that follow nothing that is missing.

        A document that was changed has another id, so the chain goes past it.
        """
        followers: dict[str, list[str]] = {}
        for one in self._links.values():
            for before in one.previous:
                followers.setdefault(before, []).append(one.id)
        after: set[str] = set()
        waiting = list(missing)
        while waiting:
            new = [one for one in followers.get(waiting.pop(), []) if one not in after]
            after.update(new)
            waiting += new
        for head in heads(self._links.values()):
            if head not in known | after:
                yield head


def copy_all(source: Repository, target: Repository) -> tuple[int, list[str]]:
    """Keep verbatim in `target` what it lacks of the source: how many, and what cannot be read.

    A document comes after those that it follows: a copy that is cut off is a whole chain, which
    the next one goes on with. What the target has of its own stays beside it, until the next
    document there follows both. Raises StorageError.
    """
    there, problems = _links(source)
    done = {one.id for one in _links(target)[0].values()}
    lacking = {one.id: (name, one) for name, one in there.items() if one.id not in done}
    waiting = sorted(lacking, key=lambda one: (*lacking[one][1][2:], one), reverse=True)
    count = 0
    while waiting:
        name, one = lacking[waiting[-1]]
        if one.id not in done and (
            first := [each for each in one.previous if each in lacking and each not in done]
        ):
            waiting += first
            continue
        waiting.pop()
        if one.id not in done:
            done.add(one.id)
            try:
                _store(target, _load(source, name))
                count += 1
            except FileNotFoundError:
                continue  # removed since the listing
            except DamagedError as error:  # since it was read last
                problems[name] = _told(f"evidence/{name}", error)
    return count, list(problems.values())


def _links(repository: Repository) -> tuple[dict[str, Link], dict[str, str]]:
    """By file what it holds, out of what is remembered and of the files that are new; and what is
    wrong with the others. Raises StorageError.
    """
    kept = remembered.load(repository)
    names = {name for name, _ in repository.storage.list("evidence")}
    links = {name: one for name, one in kept.items() if name in names}
    forgotten = len(kept) - len(links)
    problems: dict[str, str] = {}
    fresh = {
        name: _link(document)
        for name, document in _each(repository, problems, names - links.keys())
    }
    links |= fresh
    if len(fresh) > FEW or forgotten > FEW:
        remembered.keep(repository, links)
    return links, problems


def _each(
    repository: Repository, problems: dict[str, str], names: Iterable[str] | None = None
) -> Iterator[tuple[str, Evidence]]:
    """Files (all, or these) with their documents; `problems` gets the others."""
    if names is None:
        names = [name for name, _ in repository.storage.list("evidence")]
    for name in sorted(names):
        try:
            document = _load(repository, name)
        except FileNotFoundError:
            continue  # removed since the listing
        except DamagedError as error:
            problems[f"evidence/{name}"] = _told(f"evidence/{name}", error)
        else:
            yield name, document


def _load(repository: Repository, name: str) -> Evidence:
    """Raises FileNotFoundError, DamagedError, StorageError."""
    stored = repository.load_document("evidence", name)
    try:
        return parse(stored["evidence"].encode("ascii"))
    except (KeyError, AttributeError, UnicodeEncodeError) as error:
        raise DamagedError(f"evidence/{name} is damaged: no evidence") from error


def _told(file: str, error: DamagedError) -> str:
    return str(error) if str(error).startswith(file) else f"{file}: {error}"


def _store(repository: Repository, document: Evidence) -> None:
    repository.save_document("evidence", {"evidence": document.canonical().decode("ascii")})


def _link(document: Evidence) -> Link:
    return Link(document.id, tuple(document.previous), document.ended_ns, document.started_ns)


def _when(document: Evidence) -> tuple[int, int, str]:
    return document.ended_ns, document.started_ns, document.id
