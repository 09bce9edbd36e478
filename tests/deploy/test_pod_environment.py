"""What a rendered pod gives its process is enough: its uid, its variables, its folders, no home, a
root file system that is read-only.

There is no cluster here. The same process runs on this machine with exactly that, and with data
that belongs to the pod's user; only the prefix of its folders is another.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake import password
from safetake.operate.kubernetes import make_plan, objects
from tests.support.kubernetes_tools import IMAGE, ROOT, pods

USER = 10001
# This machine's Python may lie in a private folder: the user may read all, and write as itself.
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
AS_USER += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
# Only the folder that is named can be written, by anybody, in a mount namespace of its own.
READ_ONLY = """
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,ro,bind /
shift
exec "$@"
"""
CONFIG = f"""
[repository]
location = "/data/backup"
password_file = "/etc/safetake/password"

[sources.projects]
type = "sqlite"
path = "/data/projects.db"

[jobs.sqlite-backup]
kind = "backup"
schedule = "0 */6 * * *"

[kubernetes]
image = "{IMAGE}"

[kubernetes.volumes.data]
claim = "project-service-data"
mount = "/data"
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that stands for `/`, which any user can reach (pytest's own are private)."""
    folder = Path(tempfile.mkdtemp(prefix="pod-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.call(["unshare", "--mount", "setpriv", "true"]) != 0,
    reason="only root can become another user and mount, with setpriv and unshare (util-linux)",
)
def test_a_first_backup_and_its_proof(root: Path) -> None:
    text = CONFIG.replace('"/data', f'"{root}/data').replace('"/etc', f'"{root}/etc')
    (pod,) = pods(objects(make_plan(CONFIG, Path("safetake.toml"))))
    container = pod["spec"]["containers"][0]
    assert pod["spec"]["securityContext"]["runAsUser"] == USER
    for mount in container["volumeMounts"]:
        folder = root / mount["mountPath"].lstrip("/")
        folder.mkdir(parents=True)
        os.chown(folder, 0, USER)  # as an emptyDir or a volume with fsGroup
        folder.chmod(0o750 if mount.get("readOnly") else 0o2775)
    config = root / "etc/safetake/safetake.toml"
    config.write_text(text, encoding="utf-8")
    secret = root / "etc/safetake/password"  # as in a volume of a Secret with mode 0440
    secret.write_text("password")
    os.chown(secret, 0, USER)
    secret.chmod(0o440)
    with sqlite3.connect(root / "data/projects.db") as db:
        db.execute("PRAGMA journal_mode=wal")
        db.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY)")
    db.close()
    for file in (root / "data").iterdir():
        os.chown(file, USER, USER)
    environment = {
        each["name"]: str(root) + each["value"] if each["value"].startswith("/") else each["value"]
        for each in container["env"]
    }
    environment |= {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"PYTHONPATH": str(ROOT / "src")}
    read_only = ["unshare", "--mount", "sh", "-ec", READ_ONLY, "sh", str(root)]

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*read_only, *AS_USER, sys.executable, "-m", "safetake", *words],
            env=environment | {"TMPDIR": str(root / "tmp")},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    with pytest.raises(AssertionError, match="Read-only file system"):
        run(
            "init",
            "--config",
            "/var/tmp/safetake-new.toml",
            "--repository",
            "/var/tmp/safetake-new",
        )
    run("init")
    run(*container["args"])
    run("verify", "--json")
    (snapshot,) = json.loads(run("snapshots", "--json"))
    assert snapshot["hostname"] == "safetake.default"
    assert snapshot["rung"] == "opened"
    found = json.loads(run("doctor", "--json"))["findings"]
    (asked,) = [each for each in found if each["what"] == "password"]
    assert asked["state"] == "ok"
    state, cache = root / "var/lib/safetake", root / "var/lib/safetake/cache"
    assert cache.is_dir()
    assert any(each != cache for each in state.iterdir())  # the history
    outside = [each for each in root.iterdir() if each.name not in ("data", "etc", "tmp", "var")]
    assert outside == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_a_secret_of_the_pods_group_is_private_enough(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("password")
    file.chmod(0o440)
    assert "0440" in str(password.file_problem(file))  # our own file, open to the group
    os.chown(file, 1, os.getegid())
    assert password.file_problem(file) is None
    file.chmod(0o444)
    assert "0444" in str(password.file_problem(file))
    os.chown(file, 1, 12345)
    file.chmod(0o440)
    assert "0440" in str(password.file_problem(file))  # a group that is not ours
