"""Climbing the ladder: a snapshot is read back, or opened, and what was found is recorded.

`read back` decrypts and hashes every byte of the snapshot. `opened` restores each source to a
scratch folder (which reads every byte back, too) and questions it in a subprocess with a timeout.
The result is stored in the repository as a proof; a failure is stored as well, so that a damaged
snapshot is never shown as good again until a proof as deep finds it good.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetake import __version__
from safetake.clock import go_time, now_ns
from safetake.errors import DamagedError, UsageError
from safetake.model import Check, Progress
from safetake.restore.beside import choose, restore_to
from safetake.restore.plan import RestorePlan, plan_node
from safetake.scratch import scratch_database, scratch_folder
from safetake.snapshots import (
    FAILED,
    META_FOLDER,
    OPENED,
    READ_BACK,
    SnapshotInfo,
    read_manifest,
    root_nodes,
)

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository

Level = Literal["read", "open"]
RUNG_OF: dict[Level, str] = {"read": READ_BACK, "open": OPENED}
OPEN_TIMEOUT_S = 1800.0
"""A store that takes longer to answer counts as one that hangs."""
_KEPT_PROBLEMS = 50


@dataclass(slots=True)
class VerifyReport:
    """What was proven of one snapshot."""

    snapshot: str
    level: Level
    ok: bool = True
    checks: dict[str, list[Check]] = field(default_factory=dict)
    """By source."""
    problems: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0
    proof: str = ""
    """Name of the stored record."""
    evidence: str = ""
    """Id of the document that says what was asked and found."""

    @property
    def rung(self) -> str:
        """The rung that it reached, or `failed`."""
        return RUNG_OF[self.level] if self.ok else FAILED

    @property
    def exit_code(self) -> int:
        """0 when proven, else 1."""
        return 0 if self.ok else 1

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake verify`."""
        return {
            "snapshot": self.snapshot,
            "level": self.level,
            "ok": self.ok,
            "rung": self.rung,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "problems": self.problems,
            "sources": {
                name: {
                    "ok": all(check.ok for check in checks),
                    "checks": [asdict(c) for c in checks],
                }
                for name, checks in self.checks.items()
            },
            "proof": self.proof,
            "evidence": self.evidence,
        }


def verify(
    repository: Repository,
    config: Config | None,
    snapshot: SnapshotInfo,
    level: Level = "read",
    progress: Progress | None = None,
    *,
    timeout: float = OPEN_TIMEOUT_S,
    scratch: Path | None = None,
) -> VerifyReport:
    """Prove a snapshot and record the result. Never raises DamagedError: damage is the answer.

    `config` gives the user's own checks for sources that are still configured. `scratch` is where
    copies are opened (needs the size of the largest source). Raises StorageError; UsageError, and
    records nothing, when a snapshot of stock restic, which has no facts, is to be opened.
    """
    started, started_ns = time.perf_counter(), now_ns()
    report = VerifyReport(snapshot.id, level)
    with repository.lock(exclusive=False):
        repository.reload()  # what was known before the lock may have been pruned since
        try:
            if level == "read":
                _read_back(repository, snapshot, report, progress)
            else:
                _open(repository, config, snapshot, report, progress, timeout, scratch)
        except DamagedError as error:
            report.problems.append(str(error))
        for name, checks in report.checks.items():
            report.problems += [
                f"{name}: {check.name}: expected {_short(check.expected)}, "
                f"found {_short(check.found)}" + (f" ({check.detail})" if check.detail else "")
                for check in checks
                if not check.ok
            ]
        report.ok = not report.problems
        report.seconds = time.perf_counter() - started
        report.evidence = _evidence(repository, report, started_ns)
        report.proof = repository.save_document(
            "proofs",
            {
                "safetake": __version__,
                "snapshot": snapshot.id,
                "tree": snapshot.tree.hex(),
                "rung": RUNG_OF[level],
                "ok": report.ok,
                "evidence": report.evidence,
                "time": go_time(now_ns()),
                "seconds": round(report.seconds, 3),
                "bytes": report.bytes,
                "problems": report.problems[:_KEPT_PROBLEMS],
                "checks": {
                    name: [[check.name, check.ok] for check in checks]
                    for name, checks in report.checks.items()
                },
            },
        )
    return report


def _evidence(repository: Repository, report: VerifyReport, started_ns: int) -> str:
    """Keep what was asked and found; returns the document's id. Raises StorageError."""
    from safetake import evidence
    from safetake.evidence.versions import place, versions

    host, user = place()
    if report.level == "read":
        whole = "every byte decrypts and hashes to its name"
        alone = evidence.Check(name=whole, ok=report.ok, found=report.bytes)
    else:  # it did not come to a question
        alone = evidence.Check(name="opened", ok=report.ok, found=report.problems[:1])
    asked = [
        evidence.Check(
            name=check.name,
            ok=check.ok,
            source=name,
            expected=check.expected,
            found=check.found,
            detail=check.detail,
        )
        for name, checks in report.checks.items()
        for check in checks
    ]
    seconds = report.seconds
    document = evidence.save(
        repository,
        evidence.Draft(
            kind="verify",
            name=f"verify, level {report.level}",
            started_ns=started_ns,
            ended_ns=now_ns(),
            host=host,
            user=user,
            repository=repository.id,
            snapshot=report.snapshot,
            versions=versions(),
            checks=asked or [alone],
            steps=[evidence.Step(name=report.level, started_ns=started_ns, seconds=seconds)],
            measured={"seconds": seconds, "bytes": float(report.bytes)},
            problems=report.problems[:_KEPT_PROBLEMS],
        ),
    )
    return document.id


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:200] + "…"


def _read_back(
    repository: Repository, snapshot: SnapshotInfo, report: VerifyReport, progress: Progress | None
) -> None:
    reader = repository.reader()
    read_manifest(reader, snapshot)
    wanted: dict[bytes, None] = {}
    total = 0
    meta = root_nodes(reader, snapshot).get(META_FOLDER)
    folders = [*choose(reader, snapshot, []).items(), *([(META_FOLDER, meta)] if meta else [])]
    for name, node in folders:
        with scratch_database() as database:
            plan = RestorePlan(database)  # every part, and its layout, too
            plan_node(reader, node, name, plan)
            total += plan.bytes
            for file in plan.files():
                wanted.update(dict.fromkeys(file.blobs()))
    report.bytes = total
    read = 0

    def count(blob_id: bytes, plain: bytes | bytearray) -> None:
        nonlocal read
        read += len(plain)
        if progress is not None:
            progress("read back", read, total)

    reader.stream(wanted, count, failed=lambda blob_id, error: report.problems.append(str(error)))


def _open(
    repository: Repository,
    config: Config | None,
    snapshot: SnapshotInfo,
    report: VerifyReport,
    progress: Progress | None,
    timeout: float,
    scratch: Path | None,
) -> None:
    manifest = read_manifest(repository.reader(), snapshot)
    if manifest is None:
        raise UsageError(
            f"snapshot {snapshot.id[:8]} was not made by safetake: there are no facts to compare",
            hint="`safetake verify --level read` proves every byte of it",
        )
    if not manifest["sources"]:
        raise DamagedError(f"snapshot {snapshot.id[:8]}: its manifest names no source to open")
    for name, entry in manifest["sources"].items():
        with scratch_folder(scratch) as folder:
            try:
                found = restore_to(
                    repository, snapshot, [name], folder / "tree", progress=progress, durable=False
                )
                report.bytes += found.sources[name]["bytes"]
                report.checks[name] = question(
                    str(entry.get("type")),
                    folder / "tree" / name,
                    {**entry, "checks": _own_checks(config, name)},
                    folder,
                    timeout,
                )
            except DamagedError as error:
                report.checks[name] = [Check("read back", ok=False, found=str(error))]


def _own_checks(config: Config | None, name: str) -> list[dict[str, str]]:
    source = config.sources.get(name) if config is not None else None
    if source is None or source.type != "sqlite":
        return []
    return [check.model_dump() for check in source.checks]


def question(
    kind: str, staged: Path, entry: Mapping[str, Any], folder: Path, timeout: float
) -> list[Check]:
    """Question the copy in a subprocess; a crash, a hang or no answer is a failed check."""
    entry_file, answers = folder / "entry.json", folder / "answers.json"
    entry_file.write_text(json.dumps(entry), encoding="utf-8")
    command = [sys.executable, "-m", "safetake.proof.child", kind]
    command += [str(staged), str(entry_file), str(answers)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return [
                Check("opened", ok=False, expected="an answer", found=f"none in {timeout:.0f} s")
            ]
        finally:
            with contextlib.suppress(ProcessLookupError):  # whatever it started goes with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0:
        said = (folder / "output").read_text(encoding="utf-8", errors="replace")[-2000:]
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = said.strip().splitlines()[-1:] or [""]
        return [Check("opened", ok=False, expected="an answer", found=how, detail=last[0])]
    try:
        checks = [Check(**item) for item in json.loads(answers.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        return [Check("opened", ok=False, expected="an answer", found=f"none: {error}")]
    if not checks:
        return [Check("opened", ok=False, expected="at least one question", found="none")]
    return checks
