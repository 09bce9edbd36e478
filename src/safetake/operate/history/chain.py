"""What is wrong with a chain of records: pure functions over what was read.

A record cannot be changed without another id; so what is left to look for is what is not there, and
what stands elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.clock import go_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from safetake.operate.history.local import State
    from safetake.operate.history.log import Scan
    from safetake.operate.history.record import Record


def named(record: Record) -> str:
    """A record in a few words."""
    what = f"{record.kind} {record.job}".rstrip()
    return f"record {record.id[:8]} ({what}, {go_time(record.ended_ns)[:19]}Z)"


def problems(
    scan: Scan,
    remembered: State | None,
    documents: dict[str, list[Record]] | None,
    repository: str,
) -> list[str]:
    """All that is wrong, in words.

    `documents` is what the repository holds, None when it was not asked; `repository` its id.
    """
    found = list(scan.broken)
    found += [
        f"{named(scan.records[one])} stands before the record that it follows"
        for one in scan.misplaced
    ]
    stored = {record.id: record for group in (documents or {}).values() for record in group}
    everything = {**scan.records, **stored}
    followers: dict[str, Record] = {}
    for record in sorted(everything.values(), key=lambda one: (one.ended_ns, one.id)):
        for one in record.previous:
            if one not in everything:
                followers.setdefault(one, record)
    told = set(followers)
    found += [
        f"record {one[:8]} is missing: {named(record)} follows it"
        for one, record in followers.items()
    ]
    kept = {name: ids for of in scan.documents.values() for name, ids in of.items()}
    here = {one for ids in kept.values() for one in ids}
    if remembered is not None:
        cut_off = [one for one in remembered.heads if one not in scan.records and one not in told]
        told.update(cut_off)
        found += [
            f"{_what(one, everything)} is missing here: it was the newest that this machine knew, "
            "and the end of its history was cut off"
            for one in cut_off
        ]
        for name in remembered.documents:
            here.update(record.id for record in (documents or {}).get(name, ()))
    found += [
        f"{_what(one, everything)} was in this machine's history, and is not there any more"
        for one in sorted(here - set(scan.records) - told)
    ]
    if documents is not None:
        pushed = {one for ids in scan.documents.get(repository, {}).values() for one in ids}
        found += [
            f"{_what(one, everything)} was in the repository, and is not there any more"
            for one in sorted(pushed - set(stored) - told)
        ]
    return found


def _what(one: str, records: dict[str, Record]) -> str:
    return named(records[one]) if one in records else f"record {one[:8]}"


def heads(records: Iterable[Record]) -> list[str]:
    """The ids that no other record follows."""
    every = list(records)
    followed = {one for record in every for one in record.previous}
    return sorted(record.id for record in every if record.id not in followed)
