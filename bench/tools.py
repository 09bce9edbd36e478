"""The tools that are compared: the same steps, each with the tool's own whole command.

All of them protect the same folder with the same bytes. safetake treats it as what it is (one
SQLite, one Chroma and two files sources); the others treat it as files, which is all that they
can do. safetake and restic use copies of one repository that `restic init` made, so that both
open it with the same scrypt setting.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Protocol

import safetake
from bench.command import Run, found, remove, run, size_mb

PASSWORD = "bench"
SOURCES = ("projects", "chroma", "scripts", "queue")


class Tool(Protocol):
    """One competitor, with a repository of its own."""

    name: str

    def init(self) -> None: ...
    def backup(self) -> Run: ...
    def check(self) -> Run | None: ...
    def restore(self, number: int, target: Path) -> Run:
        """Bring the snapshot with this number (0 is the first) back into `target`."""
        ...

    def size_mb(self) -> float: ...
    def close(self) -> None: ...


class _Restic:
    """What both users of the format share."""

    def __init__(self, data: Path, work: Path, template: Path | None) -> None:
        self.data = data
        self.repository = work / self.name
        self.template = template
        self.env = {
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
            "RESTIC_PROGRESS_FPS": "0.1",
        }

    name = "restic"

    def init(self) -> None:
        remove(self.repository)
        if self.template is not None:
            run(["cp", "-a", self.template, self.repository])

    def size_mb(self) -> float:
        return size_mb(self.repository)

    def close(self) -> None:
        remove(self.repository)


class Restic(_Restic):
    """Debian's restic, zstd at its default level."""

    def init(self) -> None:
        if self.template is None:
            raise RuntimeError("restic needs the repository that it made itself")
        super().init()

    def backup(self) -> Run:
        return run(["restic", "backup", "--quiet", str(self.data)], env=self.env)

    def check(self) -> Run | None:
        return run(["restic", "check", "--read-data", "--quiet"], env=self.env)

    def restore(self, number: int, target: Path) -> Run:
        listed = run(["restic", "snapshots", "--json"], env=self.env).stdout
        snapshots = sorted(json.loads(listed), key=lambda snapshot: str(snapshot["time"]))
        which = snapshots[number]["id"]
        return run(["restic", "restore", which, "--target", str(target), "--quiet"], env=self.env)


def make_template(work: Path) -> Path | None:
    """An empty repository by `restic init`; None where there is no restic."""
    if not found("restic"):
        return None
    template = work / "template"
    remove(template)
    env = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(template)}
    run(["restic", "init", "--repository-version", "2", "--no-cache"], env=env)
    return template


def safetake_with(folder: Path, section: str) -> list[str]:
    """`safetake --json` with one source and an empty repository in `folder / "repository"`. Its
    password is in the environment."""
    from safetake.repository import Repository
    from safetake.storage import LocalStorage

    repository = folder / "repository"
    template = make_template(folder)
    if template is None:
        Repository.init(LocalStorage(repository), PASSWORD)
    else:
        template.rename(repository)
    os.environ["SAFETAKE_BENCH_PASSWORD"] = PASSWORD
    config = folder / "safetake.toml"
    config.write_text(
        f'[repository]\nlocation = "{repository}"\npassword_env = "SAFETAKE_BENCH_PASSWORD"\n'
        f'{section}\n[restore]\nstate = "{folder / "state"}"\n'
    )
    return [sys.executable, "-m", "safetake", "--config", str(config), "--json"]


class Safetake(_Restic):
    """This project's command, as a user runs it."""

    name = "safetake"

    def __init__(self, data: Path, work: Path, template: Path | None) -> None:
        super().__init__(data, work, template)
        self.config = work / "safetake.toml"
        self.cache = work / "safetake-cache"
        self.env = {"SAFETAKE_BENCH_PASSWORD": PASSWORD, "XDG_CACHE_HOME": str(self.cache)}
        self.ids: list[str] = []

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "safetake", "--config", str(self.config), "--json", *words]

    def init(self) -> None:
        self.config.write_text(
            f"""[repository]
location = {json.dumps(str(self.repository))}
password_env = "SAFETAKE_BENCH_PASSWORD"
[sources.projects]
type = "sqlite"
path = {json.dumps(str(self.data / "projects" / "projects.db"))}
[sources.chroma]
type = "chroma"
path = {json.dumps(str(self.data / "chroma"))}
[sources.scripts]
type = "files"
path = {json.dumps(str(self.data / "scripts"))}
[sources.queue]
type = "files"
path = {json.dumps(str(self.data / "queue"))}
"""
        )
        self.ids = []
        # as an installer does; an editable checkout may hold modules that were changed since
        run([sys.executable, "-m", "compileall", "-q", str(Path(safetake.__file__).parent)])
        remove(self.cache)
        if self.template is None:
            remove(self.repository)
            run(self._command("init"), env=self.env)
        else:
            super().init()

    def backup(self) -> Run:
        done = run(self._command("backup"), env=self.env)
        self.ids.append(str(json.loads(done.stdout)["id"]))
        return done

    def check(self) -> Run | None:
        return run(self._command("check", "--read-data"), env=self.env)

    def restore(self, number: int, target: Path) -> Run:
        return run(self._command("restore", self.ids[number], "--to", str(target)), env=self.env)

    def close(self) -> None:
        super().close()
        remove(self.cache)


class Borg:
    """Debian's borg with zstd 1 and its usual encryption."""

    name = "borg"

    def __init__(self, data: Path, work: Path, template: Path | None) -> None:
        self.data = data
        self.repository = work / self.name
        self.base = work / "borg-base"
        self.taken = 0
        self.env = {
            "BORG_REPO": str(self.repository),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(self.base),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_CHECK_I_KNOW_WHAT_I_AM_DOING": "YES",
        }

    def init(self) -> None:
        self.close()
        self.base.mkdir(parents=True)
        self.taken = 0
        run(["borg", "init", "--encryption", "repokey-blake2"], env=self.env)

    def backup(self) -> Run:
        archive = f"::take-{self.taken}"
        self.taken += 1
        return run(
            ["borg", "create", "--compression", "zstd,1", archive, str(self.data)],
            env=self.env,
            allowed=(0, 1),
        )

    def check(self) -> Run | None:
        return run(["borg", "check", "--verify-data"], env=self.env)

    def restore(self, number: int, target: Path) -> Run:
        target.mkdir(parents=True)
        return run(["borg", "extract", f"::take-{number}"], env=self.env, cwd=target)

    def size_mb(self) -> float:
        return size_mb(self.repository)

    def close(self) -> None:
        remove(self.repository)
        remove(self.base)


class Tar:
    """tar into zstd on both cores; every backup is a full one."""

    name = "tar | zstd"

    def __init__(self, data: Path, work: Path, template: Path | None) -> None:
        self.data = data
        self.folder = work / "tar"
        self.taken = 0

    def init(self) -> None:
        self.close()
        self.folder.mkdir()
        self.taken = 0

    def _archive(self, number: int) -> Path:
        return self.folder / f"{number}.tar.zst"

    def backup(self) -> Run:
        archive = self._archive(self.taken)
        self.taken += 1
        script = 'set -o pipefail; tar -C "$1" -c . | zstd -q -1 -T2 -o "$2" && sync "$2"'
        return run(["bash", "-c", script, "bench", self.data, archive])

    def check(self) -> Run | None:
        return run(["zstd", "-q", "-t", self._archive(self.taken - 1)])

    def restore(self, number: int, target: Path) -> Run:
        target.mkdir(parents=True)
        script = 'set -o pipefail; zstd -q -d -c "$1" | tar -C "$2" -x'
        return run(["bash", "-c", script, "bench", self._archive(number), target])

    def size_mb(self) -> float:
        return size_mb(self.folder)

    def close(self) -> None:
        remove(self.folder)


class Copy:
    """`cp -a`: what the disk allows. Keeps its first and its last copy only."""

    name = "cp"

    def __init__(self, data: Path, work: Path, template: Path | None) -> None:
        self.data = data
        self.folder = work / "cp"
        self.taken = 0

    def init(self) -> None:
        self.close()
        self.folder.mkdir()
        self.taken = 0

    def backup(self) -> Run:
        target = self.folder / f"{min(self.taken, 1)}"
        remove(target)
        self.taken += 1
        return run(["cp", "-a", self.data, target])

    def check(self) -> Run | None:
        return None

    def restore(self, number: int, target: Path) -> Run:
        return run(["cp", "-a", self.folder / f"{min(number, 1)}", target])

    def size_mb(self) -> float:
        return size_mb(self.folder)

    def close(self) -> None:
        remove(self.folder)


TOOLS: dict[str, type[Safetake] | type[Restic] | type[Borg] | type[Tar] | type[Copy]] = {
    "safetake": Safetake,
    "restic": Restic,
    "borg": Borg,
    "tar": Tar,
    "cp": Copy,
}
NEEDS = {"safetake": "python3", "restic": "restic", "borg": "borg", "tar": "zstd", "cp": "cp"}


def available(names: list[str]) -> list[str]:
    """Those that are installed; says which are not."""
    present = []
    for name in names:
        if found(NEEDS[name]):
            present.append(name)
        else:
            print(f"bench: {name} is not installed and left out", file=sys.stderr)
    return present
