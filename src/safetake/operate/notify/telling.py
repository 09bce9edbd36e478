"""The use cases: after a run, from time to time, at the start of a job, and by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.errors import SafetakeError
from safetake.operate.notify import judge, pings, words
from safetake.operate.notify.deliver import tell_all
from safetake.operate.notify.state import Known, Way, load
from safetake.operate.notify.targets import Target, targets, wanted
from safetake.operate.notify.words import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safetake.config import Config
    from safetake.operate.history import History, Record

_INTERRUPTED = 130


class NotDeliveredError(SafetakeError):
    """Somebody could not be told; it is tried again at the next run."""


def tell(config: Config, history: History, record: Record) -> None:
    """After a run: ping its switch, tell what is new, deliver what waits.

    Takes at most 50 s, however hosts hang. Raises NotDeliveredError; SafetakeError when what was
    told cannot be remembered.
    """
    now = history.now_ns()
    errors = []
    if record.job and record.kind != "missed" and record.exit_code != _INTERRUPTED:
        what = pings.SUCCESS if record.ok else pings.FAIL
        error = pings.ping(config, record.job, what, words.clean(record.error), now)
        errors += [f"ping of {record.job}: {error}"] if error else []
    if wanted(config):

        def news(known: Known) -> Sequence[Message]:
            return [
                *judge.run_ended(config, known, record, now),
                *_digest(config, history, known, now),
            ]

        errors += tell_all(config, news, now)
    _raise(errors)


def tell_overdue(
    config: Config, history: History, overdue: Mapping[str, str] | None = None
) -> None:
    """From time to time: tell what is overdue, when it is over, and deliver what waits.

    `overdue` is all of it, by job or source, with why; without it, it is worked out from the
    history. Raises NotDeliveredError, SafetakeError.
    """
    if not wanted(config):
        return
    from safetake.hostname import host_name
    from safetake.operate.notify.late import late

    now = history.now_ns()

    def news(known: Known) -> Sequence[Message]:
        known.watched_ns = known.watched_ns or now
        found = late(config, history, known.watched_ns, now) if overdue is None else overdue
        return [
            *judge.overdue(config, known, found, host_name(), now),
            *_digest(config, history, known, now),
        ]

    _raise(tell_all(config, news, now))


def digest(config: Config, history: History) -> None:
    """Tell what happened since the last digest, now. (When its schedule comes, `tell` and
    `tell_overdue` do it by themselves.) Raises NotDeliveredError, SafetakeError.
    """
    from safetake.operate.notify.summary import make_digest

    now = history.now_ns()
    _raise(tell_all(config, lambda known: [make_digest(config, history, known, now)], now))


def ping_start(config: Config, job: str, now_ns: int | None = None) -> None:
    """Tell a job's switch that it starts. Never raises; takes at most 20 s."""
    now = clock.now_ns() if now_ns is None else now_ns
    pings.ping(config, job, pings.START, "", now)


def send_test(config: Config) -> list[tuple[Target, str]]:
    """Tell everybody that it works; each with why it did not, or nothing. Raises SafetakeError
    when nobody is configured, or some URLs cannot be found.
    """
    from safetake.hostname import host_name
    from safetake.operate.notify.send import SEND_S, send
    from safetake.operate.notify.state import changing

    people, problems = targets(config)
    if problems:
        raise SafetakeError("; ".join(problems), hint="see [notify] in the configuration")
    if not people:
        raise SafetakeError(
            "nobody is to be told",
            hint="give urls_env or urls_file in [notify] the URLs of Apprise, such as slack://…",
        )
    host = host_name()
    work = [
        {
            "kind": "notify",
            "url": one.url,
            "title": f"safetake: test from {host}",
            "body": "Notifications arrive here.\n\n"
            f"Where: {host}, repository {words.clean(config.repository.location)}\n"
            "Next: `safetake notify status` shows what is told, and what could not be delivered",
            "level": "info",
        }
        for one in people
    ]
    errors = send(config, work, SEND_S)
    now = clock.now_ns()
    with changing(config) as known:
        for one, error in zip(people, errors, strict=True):
            known.way(one.way).tried(now, error)
    return list(zip(people, errors, strict=True))


@dataclass(slots=True)
class Delivery:
    """How telling people goes, for `status` and metrics."""

    ways: dict[str, Way] = field(default_factory=dict)
    """By scheme of the URL; `ping` for dead man's switches."""
    last_ns: int = 0
    """Of the last message that was delivered; 0: none was."""
    pending: int = 0
    """Messages that have not reached everybody."""
    failures: int = 0
    """Attempts that failed, in all."""
    dropped: int = 0
    """Messages that were given up after a week."""
    problems: dict[str, int] = field(default_factory=dict)
    """What lasts: `backup:nightly`, `overdue:projects`; since when, in nanoseconds."""

    @property
    def errors(self) -> dict[str, str]:
        """By way: why its last attempt failed."""
        return {name: way.error for name, way in self.ways.items() if not way.ok}

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `notify status`."""

        def moment(ns: int) -> str | None:
            return clock.go_time(ns) if ns else None

        return {
            "last": moment(self.last_ns),
            "pending": self.pending,
            "failures": self.failures,
            "dropped": self.dropped,
            "ways": {
                name: {
                    "ok": way.ok,
                    "last_attempt": moment(way.time_ns),
                    "last_delivered": moment(way.delivered_ns),
                    "delivered": way.delivered,
                    "failures": way.failures,
                    "error": way.error,
                }
                for name, way in self.ways.items()
            },
            "problems": {name: moment(ns) for name, ns in self.problems.items()},
        }


def delivery(config: Config) -> Delivery:
    """What became of notifications so far, from the state folder. Never raises."""
    known = load(config)
    return Delivery(
        known.ways,
        max((way.delivered_ns for way in known.ways.values()), default=0),
        len(known.waiting),
        sum(way.failures for way in known.ways.values()),
        known.dropped,
        {key: problem.since_ns for key, problem in known.problems.items()},
    )


def _digest(config: Config, history: History, known: Known, now: int) -> list[Message]:
    from safetake.operate.notify.summary import digest_due, make_digest

    due = digest_due(config, known, now)
    return [make_digest(config, history, known, now)] if due else []


def _raise(errors: list[str]) -> None:
    if errors:
        raise NotDeliveredError(
            "not delivered: " + "; ".join(dict.fromkeys(errors)),
            hint="it is tried again after the next run; `safetake notify status` shows it",
        )
