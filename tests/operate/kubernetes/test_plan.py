"""What a pod could not do is said before anything is rendered, all of it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import ConfigError
from safetake.operate.kubernetes import Mode, make_plan, objects
from safetake.operate.kubernetes.names import object_name
from tests.support.kubernetes_tools import R2, pods


def plan(text: str, mode: Mode = "cronjobs", **more: Any) -> Any:
    return make_plan(text, Path("here.toml"), mode, **more)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"/data/projects.db"', '"/other/projects.db"', "path: /other/projects.db is on no volume"),
        ('"/data/projects.db"', '"projects.db"', "/etc/safetake/projects.db is on no volume"),
        ('"/data/projects.db"', '"~/projects.db"', "sources.projects.path: begins with ~"),
        ('"/data/backup"', '"backup"', "repository.location: /etc/safetake/backup is on no volume"),
        ('mount = "/data"', 'mount = "/data"\nread_only = true', "volumes.data is read_only"),
        ('mount = "/data"', 'mount = "/data/projects.db"', "mount the folder of /data/projects.db"),
        ('mount = "/data"', 'mount = "/etc/safetake/data"', "nothing can be mounted in"),
        ('mount = "/data"', 'mount = "/usr/data"', "the system's files are there"),
        ("redis://redis:6379", "redis://127.0.0.1:6379", "127.0.0.1 is the pod itself"),
        ("redis://redis:6379", "redis://localhost", "localhost is the pod itself"),
        ("redis://redis:6379", "unix:///run/redis.sock", "a socket is on no volume"),
        ("redis://redis:6379", "redis://redis:port", "its port is no number"),
        ('"/etc/safetake/redis/password"\n\n[s', '"/etc/password"\n\n[s', "mounted on /etc"),
        ('"/etc/safetake/redis/password"\n\n[s', '"/etc/safetake/safetake.toml"\n\n[s', "is taken"),
        ('"/etc/safetake/redis/password"\n\n[s', '"/srv/a/pass word"\n\n[s', "can be no key"),
        (
            '"/etc/safetake/redis/password"\n\n[s',
            '"/etc/safetake/..p"\n\n[s',
            "begin with two dots",
        ),
        ('"/etc/safetake/redis/password" = ', '"REDIS" = ', "reads no such variable or file"),
        ("[notify]", '[copies.far]\nlocation = "/far"\n\n[notify]', "copies.far.location"),
        ('"NOTIFY_URLS"', '"NOTIFY URLS"', "'NOTIFY URLS' is no name of an environment variable"),
        ('"NOTIFY_URLS"', '"HOME"', "$HOME is set in the pod already"),
        (
            'urls_env = "NOTIFY_URLS"',
            'urls = ["slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"]',
            "notify.urls.0: holds a secret",
        ),
        ("0 */6 * * *", "0 0 L * *", "jobs.sqlite-backup.schedule: a CronJob knows no L"),
        ("deployment/project-service", 'deployment/x"\ncontext = "prod', "project-service.context"),
        ('kubernetes = "deployment/project-service"', 'systemd = "a.service"', "from a pod"),
        (
            "[notify]",
            '[drill]\nscratch = "/data/drills"\n[drill.kubernetes]\nnamespace = "d"\n'
            'source_namespace = "p"\ncontext = "prod"\n[notify]',
            "drill.kubernetes.context",
        ),
        ("[notify]", '[drill]\nscratch = "/drills"\n[notify]', "drill.scratch: /drills is on no"),
        ("@sha256:", "-", "kubernetes.image: has no digest"),
        ("image = ", "# ", "kubernetes.image: is missing"),
        ('app = "project-service"', 'app = "-x"', "is no label's value"),
        ('size = "1Gi"', 'size = "1 GB"', "is no quantity"),
        (
            "[kubernetes.secrets]",
            '[kubernetes.peers.redsi]\nlabels = { app = "redis" }\n[kubernetes.secrets]',
            "names no such host (did you mean 'redis'?)",
        ),
    ],
)
def test_what_is_refused(old: str, new: str, message: str) -> None:
    assert old in R2
    with pytest.raises(ConfigError) as error:
        plan(R2.replace(old, new, 1))
    assert message in str(error.value)
    assert error.value.hint
    assert all(line.startswith("here.toml: ") for line in str(error.value).splitlines())


def test_everything_is_said_at_once() -> None:
    text = R2.replace("/data/chroma", "/elsewhere").replace("redis://redis", "redis://[::1]")
    with pytest.raises(ConfigError) as error:
        plan(text.replace("@sha256:", "-"))
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("listen", "arguments"),
    [
        ("0.0.0.0:9760", ["run"]),
        ("[::]:9760", ["run"]),
        (":9760", ["run"]),
        ("127.0.0.1:9760", ["run", "--listen", "0.0.0.0:9760"]),
        ("[::1]:9760", ["run", "--listen", "0.0.0.0:9760"]),
        ("localhost:9760", ["run", "--listen", "0.0.0.0:9760"]),
    ],
)
def test_the_daemon_listens_where_the_probes_reach_it(listen: str, arguments: list[str]) -> None:
    (pod,) = pods(objects(plan(R2.replace("0.0.0.0:9760", listen), "daemon")))
    assert pod["spec"]["containers"][0]["args"] == arguments
    assert pod["spec"]["containers"][0]["ports"][0]["containerPort"] == 9760


@pytest.mark.parametrize("listen", ["", "9760", "host:", "0.0.0.0:0", "0.0.0.0:70000"])
def test_the_probes_need_a_port(listen: str) -> None:
    text = R2.replace("0.0.0.0:9760", listen)
    plan(text)  # CronJobs have none
    with pytest.raises(ConfigError, match="the probes need one"):
        plan(text, "daemon")


def test_nothing_to_run_is_refused() -> None:
    lines = [line for line in R2.splitlines() if not line.startswith("schedule")]
    with pytest.raises(ConfigError, match="none has a schedule"):
        plan("\n".join(lines))
    plan("\n".join(lines), "job", arguments=["doctor"])


def test_an_image_without_a_digest_can_be_allowed() -> None:
    (pod, *_) = pods(objects(plan(R2, image="safetake:dev", unpinned=True)))
    assert pod["spec"]["containers"][0]["image"] == "safetake:dev"


def test_warnings_tell_what_is_risky_and_works() -> None:
    (same,) = plan(R2).warnings
    assert "the repository is on the volume that it protects" in same
    text = R2.split("[kubernetes.volumes.state]")[0].replace(
        'used_by = { app = "project-service" }', ""
    )
    warnings = "\n".join(plan(text).warnings)
    assert "no used_by" in warnings
    assert "the state folder goes with the pod" in warnings


def test_secrets_below_the_configurations_folder_are_in_one_volume() -> None:
    """A folder inside of a read-only mount can not be mounted over."""
    (pod, *_) = pods(objects(plan(R2)))
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    sources = volumes["files-0"]["projected"]["sources"]
    assert sources == [
        {"configMap": {"name": "safetake"}},
        {
            "secret": {
                "name": "redis-auth",
                "items": [{"key": "password", "path": "redis/password"}],
            }
        },
    ]
    assert "files-1" not in volumes
    variables = {each["name"]: each for each in pod["spec"]["containers"][0]["env"]}
    key = variables["SAFETAKE_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert key == {"name": "safetake", "key": "SAFETAKE_PASSWORD"}


def test_a_password_file_on_a_volume_stays_there() -> None:
    text = R2.replace('"/data/backup"', '"/data/backup"\npassword_file = "/data/password"')
    assert "/data/password" not in json.dumps(pods(objects(plan(text))))


def test_names_are_short_plain_and_never_the_same() -> None:
    jobs = ["a-b", "a.b", "a_b", "A.B", "x" * 64, "x" * 63, "-".join("abc"), "a" + "." * 40 + "b"]
    names = [object_name("safetake", job, 52) for job in jobs]
    assert names[0] == "safetake-a-b"
    assert len(set(names)) == len(names)
    assert all(len(name) <= 52 and name.strip("-") == name for name in names)


def test_the_state_folder_may_lie_on_a_volume_elsewhere() -> None:
    text = R2.split("[kubernetes.volumes.state]")[0]
    text = text.replace("[kubernetes]\n", '[restore]\nstate = "/data/state"\n\n[kubernetes]\n')
    assert not any("state folder" in warning for warning in plan(text).warnings)
