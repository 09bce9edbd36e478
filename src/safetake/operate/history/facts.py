"""What a record says of each kind of run: small, the same from every caller, and no secrets.

Each function fills a `Run` from the report of the work: facts, exit code, and why it is not 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safetake.backup import BackupReport
    from safetake.evidence import Evidence
    from safetake.operate.history.recorded import Run
    from safetake.proof.verify import VerifyReport
    from safetake.recovery.outcome import Outcome
    from safetake.repository.check import CheckReport
    from safetake.restore.beside import RestoreReport

_SOME = 3
_MANY = 100


def backup(run: Run, report: BackupReport) -> None:
    """A snapshot that is stored."""
    run.exit_code = report.exit_code
    run.facts |= {
        "snapshot": report.id,
        "added_bytes": report.added_bytes,
        "bytes": sum(captured.bytes or 0 for captured in report.sources.values()),
        "barrier_ms": report.barrier.ms,
        "skew_ms": report.barrier.skew_ms,
        "seconds": round(report.seconds, 3),
        "sources": {
            name: {
                "bytes": captured.bytes,
                "one_moment": captured.one_moment,
                "unread": len(captured.unread),
            }
            for name, captured in report.sources.items()
        },
    }
    if report.exit_code:
        unread = [
            f"{name}: {text}"
            for name, captured in report.sources.items()
            for text in captured.unread
        ]
        run.error = "not read: " + some(unread)


def verify(run: Run, reports: Sequence[VerifyReport], sources: Sequence[str]) -> None:
    """Proofs of one or several snapshots, together over these sources."""
    run.exit_code = max((report.exit_code for report in reports), default=0)
    problems = [problem for report in reports for problem in report.problems]
    run.facts |= {
        "snapshot": reports[0].snapshot if reports else "",
        "snapshots": [report.snapshot for report in reports][:_MANY],
        "evidence": next((report.evidence for report in reports), ""),
        "level": reports[0].level if reports else "",
        "rung": next((report.rung for report in reports if not report.ok), "")
        or (reports[0].rung if reports else ""),
        "bytes": sum(report.bytes for report in reports),
        "seconds": round(sum(report.seconds for report in reports), 3),
        "sources": list(sources),
        "problems": len(problems),
    }
    if problems:
        run.error = some(problems)


def check(run: Run, report: CheckReport) -> None:
    """A look at the repository itself."""
    run.exit_code = report.exit_code
    run.facts |= {
        "read_data": report.read_data,
        "errors": len(report.errors),
        "bytes": report.bytes_read,
        "seconds": round(report.seconds, 3),
    }
    if report.errors:
        run.error = some(report.errors)


def restored_to(run: Run, report: RestoreReport) -> None:
    """A restore beside the live data."""
    run.exit_code = report.exit_code
    run.facts |= {
        "id": "",
        "action": "to",
        "snapshot": report.snapshot,
        "sources": list(report.sources),
        "seconds": round(report.seconds, 3),
        "bytes": sum(int(source["bytes"]) for source in report.sources.values()),
        "outcome": "beside",
    }
    if report.problems:
        run.error = "not set: " + some(report.problems)


def restored(run: Run, outcome: Outcome, action: str, code: int) -> None:
    """A restore in place that has ended, either way."""
    run.exit_code = code
    run.facts |= {
        "id": outcome.id,
        "action": action,
        "snapshot": outcome.snapshot,
        "sources": outcome.sources,
        "seconds": round(outcome.seconds, 3),
        "downtime_seconds": round(outcome.downtime, 3),
        "outcome": outcome.ended,
    }
    if code:
        run.error = outcome.reason or some([*outcome.problems, *outcome.warnings])


def part(run: Run, action: str, source: str, code: int, **more: Any) -> None:
    """Rows, records or keys that were brought back, or that were taken back."""
    run.exit_code = code
    run.facts |= {"action": action, "sources": [source], "outcome": "done", **more}
    if code:
        run.error = "some were left out or left alone"


def drill(run: Run, document: Evidence) -> None:
    """A rehearsed disaster."""
    measured = document.measured
    whole = measured.get("rto_seconds")
    run.exit_code = 0 if document.verdict == "passed" else 1
    run.facts |= {
        "scenario": document.name,
        "evidence": document.id,
        "snapshot": document.snapshot,
        "sources": sorted({check.source for check in document.checks if check.source}),
        "seconds": whole if whole is not None else measured.get("partial_rto_seconds", 0.0),
        "bytes": int(measured.get("bytes", 0)),
        "outcome": document.verdict,
        **({} if whole is not None else {"action": "parts"}),
    }
    if run.exit_code:
        wrong = [f"{one.source}: {one.name}: {one.found}" for one in document.checks if not one.ok]
        missed = [f"{name} missed its target" for name in document.missed]
        run.error = some([*document.problems, *wrong, *missed])


def some(texts: Sequence[str]) -> str:
    """The first few of many, and how many more."""
    more = f" (and {len(texts) - _SOME} more)" if len(texts) > _SOME else ""
    return "; ".join(text[:500] for text in texts[:_SOME]) + more
