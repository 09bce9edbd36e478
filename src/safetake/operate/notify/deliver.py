"""From messages to deliveries: each waits, durably, until it has reached everybody.

What is being sent is put off for others meanwhile, so that two runs that end together do not both
send it; when this one is killed, the next one sends it after two minutes. A message may come twice
so, but is never lost, unless it could not be delivered for a week.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from safetake.errors import SafetakeError
from safetake.operate.notify.send import SEND_S, send
from safetake.operate.notify.state import Known, Waiting, changing
from safetake.operate.notify.targets import Target, targets

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.notify.words import Message

_S = 10**9
_CLAIM_NS = 120 * _S
_FIRST_NS = 60 * _S
_LONGEST_NS = 3600 * _S
_GIVEN_UP_NS = 7 * 86400 * _S
_AT_ONCE = 20
CONFIGURATION = "configuration"
"""The way of URLs that could not be found."""

Judge = Callable[[Known], Sequence["Message"]]


class _Trouble:
    """Keeps a SafetakeError for the end: what cannot be remembered is sent all the same."""

    def __init__(self) -> None:
        self.error: SafetakeError | None = None

    def __enter__(self) -> _Trouble:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, SafetakeError):
            self.error = self.error or error
            return True
        return False

    def tell(self) -> None:
        """Raise what was kept."""
        if self.error is not None:
            raise self.error


def backoff_ns(tries: int) -> int:
    """How long to wait after so many attempts that failed."""
    return int(min(_FIRST_NS << min(tries - 1, 20), _LONGEST_NS))


def tell_all(config: Config, judge: Judge, now_ns: int, timeout: float = SEND_S) -> list[str]:
    """Let `judge` say what is new, and deliver that and what waits and is due.

    Returns why something was not delivered. Raises SafetakeError when it cannot be remembered.
    """
    people, problems = targets(config)
    mine: list[Waiting] = []
    with _Trouble() as trouble, changing(config) as known:
        for message in judge(known):
            known.wait(
                Waiting(
                    message.event,
                    message.key,
                    message.title,
                    message.body,
                    message.level,
                    now_ns,
                    [one.key for one in people],
                )
            )
        _tidy(known, people, now_ns)
        if problems and people == []:
            known.way(CONFIGURATION).tried(now_ns, "; ".join(problems))
        mine = [one for one in known.waiting if one.next_ns <= now_ns and one.to][:_AT_ONCE]
        for one in mine:
            one.next_ns = now_ns + _CLAIM_NS
        mine = [dataclasses.replace(one, to=list(one.to)) for one in mine]
    if not mine:
        trouble.tell()
        return problems
    by_key = {one.key: one for one in people}
    pairs = [(waiting, by_key[key]) for waiting in mine for key in waiting.to]
    work = [
        {
            "kind": "notify",
            "url": whom.url,
            "title": waiting.title,
            "body": waiting.body,
            "level": waiting.level,
        }
        for waiting, whom in pairs
    ]
    errors = send(config, work, timeout)
    with trouble, changing(config) as known:
        for (waiting, whom), error in zip(pairs, errors, strict=True):
            known.way(whom.way).tried(now_ns, error)
            found = next((one for one in known.waiting if _same(one, waiting)), None)
            if found is not None and not error and whom.key in found.to:
                found.to.remove(whom.key)
        for waiting in mine:
            found = next((one for one in known.waiting if _same(one, waiting)), None)
            if found is not None:
                found.tries += 1
                found.next_ns = now_ns + backoff_ns(found.tries)
        known.waiting = [one for one in known.waiting if one.to]
    trouble.tell()
    return problems + [
        f"{whom.way}: {error}" for (_, whom), error in zip(pairs, errors, strict=True) if error
    ]


def _same(one: Waiting, other: Waiting) -> bool:
    return (one.event, one.key, one.made_ns) == (other.event, other.key, other.made_ns)


def _tidy(known: Known, people: Sequence[Target], now_ns: int) -> None:
    """Forget URLs that are configured no longer, and what could not be told for a week."""
    there = {one.key for one in people}
    stays = []
    for one in known.waiting:
        if people:  # where a URL was replaced, it is told by the new one
            one.to = [key for key in one.to if key in there] or sorted(there)
        if now_ns - one.made_ns > _GIVEN_UP_NS:
            known.dropped += 1
        else:
            stays.append(one)
    known.waiting = stays
