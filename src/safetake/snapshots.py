"""Snapshots as people see them: what there is, what is in them, and how far each is proven.

A snapshot of safetake is an ordinary restic snapshot whose tree holds one folder for each source
and `.safetake/manifest.json` with the facts. Snapshots that stock restic made are listed, too,
without facts. Rungs are read from the proofs in the repository, so they survive the machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.clock import go_time, parse_go_time
from safetake.errors import DamagedError, SnapshotNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from safetake.model import Node, Reader
    from safetake.repository import Repository

META_FOLDER = ".safetake"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 256 << 20

BACKUP_TAG, SAFETY_TAG = "backup", "safety"
"""What a snapshot was taken for: to be restored, or to save what a restore replaced."""

STORED = "stored"
READ_BACK = "read back"
OPENED = "opened"
RESTORED = "restored"
APP_CHECKED = "app-checked"
RUNGS = (STORED, READ_BACK, OPENED, RESTORED, APP_CHECKED)
FAILED = "failed"
"""Shown instead of a rung when the newest proof found damage."""


@dataclass(slots=True)
class Rung:
    """How far a snapshot is proven, and when."""

    name: str
    time_ns: int
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class SnapshotInfo:
    """One snapshot."""

    id: str
    time_ns: int
    document: dict[str, Any]
    rung: Rung

    @property
    def tree(self) -> bytes:
        """The root tree."""
        return bytes.fromhex(self.document["tree"])

    @property
    def sources(self) -> list[str]:
        """Names of the sources in it; empty when stock restic made it."""
        if not self.ours:
            return []
        return [path.lstrip("/") for path in self.document["paths"]]

    @property
    def ours(self) -> bool:
        """Whether safetake made it."""
        return "safetake" in (self.document.get("tags") or ())

    @property
    def safety(self) -> bool:
        """Whether it only saved what a restore in place replaced: never the `latest`."""
        return self.ours and SAFETY_TAG in (self.document.get("tags") or ())

    @property
    def job(self) -> str:
        """The job that made it, or empty."""
        for tag in self.document.get("tags") or ():
            if tag.startswith("job="):
                return str(tag[4:])
        return ""

    def as_dict(self, manifest: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON of `snapshots` and `backup`; with the manifest's numbers when it is given."""
        found: dict[str, Any] = {
            "id": self.id,
            "short_id": self.id[:8],
            "time": go_time(self.time_ns),
            "job": self.job,
            "hostname": self.document.get("hostname", ""),
            "tags": self.document.get("tags") or [],
            "paths": self.document.get("paths") or [],
            "rung": self.rung.name,
            "rung_time": go_time(self.rung.time_ns),
            "problems": self.rung.problems,
            "sources": {},
        }
        if manifest is not None:
            barrier = manifest.get("barrier", {})
            found["barrier_ms"] = barrier.get("ms")
            found["skew_ms"] = barrier.get("skew_ms")
            found["added_bytes"] = manifest.get("added_bytes")
            for name, entry in manifest.get("sources", {}).items():
                found["sources"][name] = {
                    "type": entry.get("type"),
                    "bytes": entry.get("bytes"),
                    "rung": self.rung.name,
                    "one_moment": entry.get("one_moment"),
                    "method": entry.get("method"),
                    "hold_ms": entry.get("hold_ms"),
                    "unread": entry.get("unread", []),
                    "notes": entry.get("notes", []),
                }
        return found


def _info(name: str, document: dict[str, Any], rungs: Rungs) -> SnapshotInfo:
    what = f"snapshots/{name}"
    try:
        time_ns = parse_go_time(document["time"])
        if len(bytes.fromhex(document["tree"])) != 32:
            raise DamagedError(f"{what} is damaged: impossible tree id")
        paths, tags = document.get("paths") or [], document.get("tags") or []
        if not all(isinstance(item, str) for item in (*paths, *tags)):
            raise DamagedError(f"{what} is damaged: impossible paths or tags")
        document["paths"], document["tags"] = paths, tags
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{what} is damaged: not a snapshot") from error
    return SnapshotInfo(name, time_ns, document, rungs.of(document["tree"], time_ns))


class Rungs:
    """What the proofs in a repository say of each tree.

    A proof is about content: it holds for every snapshot of the same tree, also after `restic tag`
    or `restic copy` gave it a new id. A proof that cannot be read may have been a failure, so that
    no rung is shown while there is one; it does not keep anybody from restoring.
    """

    def __init__(self, proven: dict[str, Rung], unreadable: list[str]) -> None:
        self._proven = proven
        self._unreadable = unreadable

    def of(self, tree: str, stored_ns: int) -> Rung:
        """The rung of a snapshot of `tree` that was stored at `stored_ns`."""
        rung = self._proven.get(tree, Rung(STORED, stored_ns))
        if self._unreadable and rung.name != FAILED:
            return Rung(STORED, stored_ns, list(self._unreadable))
        return rung


def read_rungs(repository: Repository) -> Rungs:
    """The highest rung proven of each tree, or FAILED when damage was found since."""
    proofs: dict[str, list[tuple[int, bool, str, list[str]]]] = {}
    unreadable: list[str] = []
    for name, _ in repository.storage.list("proofs"):
        try:
            document = repository.load_document("proofs", name)
            proofs.setdefault(str(document["tree"]), []).append(
                (
                    parse_go_time(document["time"]),
                    bool(document["ok"]),
                    str(document["rung"]),
                    [str(problem) for problem in document.get("problems", [])],
                )
            )
        except FileNotFoundError:
            continue  # removed since the listing
        except DamagedError as error:
            unreadable.append(f"{error}; remove it and verify again")
        except (KeyError, TypeError, ValueError):
            unreadable.append(f"proofs/{name} is damaged: not a proof; remove it and verify again")
    rungs = {}
    for tree, found in proofs.items():
        found.sort(key=lambda proof: proof[0])
        best: Rung | None = None
        height = -1
        for time_ns, good, rung, problems in found:
            if rung not in RUNGS:
                continue
            if not good:
                best, height = Rung(FAILED, time_ns, problems), RUNGS.index(rung)
            elif RUNGS.index(rung) >= height:
                # what failed at a rung is outweighed only by a proof of that rung or a higher one
                best, height = Rung(rung, time_ns), RUNGS.index(rung)
        if best is not None:
            rungs[tree] = best
    return Rungs(rungs, unreadable)


def list_snapshots(repository: Repository, *, proofs: bool = True) -> list[SnapshotInfo]:
    """All snapshots, the newest last. Raises DamagedError naming a damaged file.

    Without `proofs` none is read, and every snapshot stands on the first rung.
    """
    documents = list(repository.documents("snapshots"))
    rungs = read_rungs(repository) if proofs else Rungs({}, [])
    found = [_info(name, document, rungs) for name, document in documents]
    return sorted(found, key=lambda snapshot: (snapshot.time_ns, snapshot.id))


def find_snapshot(repository: Repository, wanted: str, sources: Sequence[str] = ()) -> SnapshotInfo:
    """The snapshot whose id starts with `wanted`, or for `latest` the newest that has all of
    `sources` and was not taken to save what a restore replaced. The id that it had before `restic
    tag` or `rewrite` gave it another one finds it, too.

    Raises SnapshotNotFoundError, DamagedError.
    """
    if wanted == "latest":
        snapshots = [snapshot for snapshot in list_snapshots(repository) if not snapshot.safety]
        if not snapshots:
            raise SnapshotNotFoundError(
                "there is no snapshot in the repository", hint="make one with `safetake backup`"
            )
        for snapshot in reversed(snapshots):
            if set(sources) <= set(snapshot.sources):
                return snapshot
        return snapshots[-1]  # whoever asks it for its sources says what it has
    names = [name for name, _ in repository.storage.list("snapshots") if name.startswith(wanted)]
    if wanted and not names:
        names = [
            name
            for name, document in repository.documents("snapshots")
            if str(document.get("original") or "").startswith(wanted)
        ]
    if len(names) != 1 or not wanted:
        what = "more than one snapshot" if len(names) > 1 else "no snapshot"
        raise SnapshotNotFoundError(
            f"{what} has an id that starts with {wanted!r}",
            hint="list them with `safetake snapshots`",
        )
    document = repository.load_document("snapshots", names[0])
    return _info(names[0], document, read_rungs(repository))


def elsewhere(
    repository: Repository, found: SnapshotInfo, wanted: Iterable[str]
) -> dict[str, SnapshotInfo]:
    """Those of `wanted` that `found` does not have, and the newest snapshot that has each.

    Jobs save different sources, so the newest snapshot need not have them all. Raises DamagedError.
    """
    lacking = set(wanted) - set(found.sources)
    newest: dict[str, SnapshotInfo] = {}
    if lacking:
        for one in list_snapshots(repository, proofs=False):
            if not one.safety:
                newest |= dict.fromkeys(sorted(lacking.intersection(one.sources)), one)
    return newest


def root_nodes(reader: Reader, snapshot: SnapshotInfo) -> dict[str, Node]:
    """The entries of a snapshot's root by name."""
    return {node.name: node for node in reader.tree(snapshot.tree)}


def read_manifest(reader: Reader, snapshot: SnapshotInfo) -> dict[str, Any] | None:
    """The manifest, or None for a snapshot that stock restic made. Raises DamagedError."""
    meta = root_nodes(reader, snapshot).get(META_FOLDER)
    if meta is None or meta.subtree is None:
        if snapshot.ours:
            raise DamagedError(f"snapshot {snapshot.id[:8]} has lost its manifest")
        return None
    for node in reader.tree(meta.subtree):
        if node.name == MANIFEST_NAME and node.content is not None:
            if node.size > MAX_MANIFEST_BYTES:
                raise DamagedError(f"snapshot {snapshot.id[:8]}: its manifest is too large")
            try:
                manifest = json.loads(b"".join(map(reader.blob, node.content)))
                if not all(isinstance(entry, dict) for entry in manifest["sources"].values()):
                    raise DamagedError(f"snapshot {snapshot.id[:8]}: its manifest has no sources")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DamagedError(
                    f"snapshot {snapshot.id[:8]}: its manifest is not valid ({error})"
                ) from error
            return dict(manifest)
    raise DamagedError(f"snapshot {snapshot.id[:8]} has lost its manifest")
