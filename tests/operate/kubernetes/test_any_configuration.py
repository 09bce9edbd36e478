"""Any configuration that is valid renders as valid objects that keep the policy, or is refused
with a reason: nothing in between, whatever is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.errors import ConfigError
from safetake.operate.kubernetes import Mode, chart_values, make_plan, objects
from safetake.yamltext import to_yaml
from tests.support.kubernetes_tools import CUSTOM, IMAGE, normal, pods, rendered_by_helm, validate
from tests.support.pod_policy import broken

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}", fullmatch=True) | st.sampled_from(
    ["on", "1e3", "null", "a", "A.b_c-"]
)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
LABELS = st.dictionaries(
    st.sampled_from(["app", "y", "example.com/tier", "1"]),
    st.sampled_from(["web", "y", "1e3", "", "0x1"]),
    max_size=2,
)


def mostly(good: list[Any], bad: list[Any]) -> st.SearchStrategy[Any]:
    """Those of the second list rarely: most of what is drawn has to render."""
    return st.integers(0, 60).flatmap(lambda n: st.sampled_from(bad if n == 60 else good))


VARIABLES = mostly(["TOKEN", "y", "_x1", "ON"], ["HOME", "PATH", "1x", "A B"])
PATHS = mostly(
    ["/data/a", "/data/b.db", "/backup/repo", "/장면/a", "/data/a/b c"],
    ["relative", "~/x", "/etc/x", "/tmp/x", "/data", "/elsewhere/a"],
)
SECRET_FILES = mostly(
    ["/etc/safetake/p", "/etc/safetake/a/b", "/run/x/p", "/run/x/y/p", "/data/p"],
    ["/etc/p", "/var/lib/safetake/p", "/etc/safetake/safetake.toml", "/run/x/p q"],
)
HOSTS = mostly(
    ["redis", "redis.other", "r.other.svc", "10.0.0.7", "[fd00::1]", "a.example.com", "a.y"],
    ["localhost", "127.0.0.2"],
)
CRONS = mostly(
    ["0 */6 * * *", "0 0 * * 7", "*/5 * * * *", "0 0 29 2 *", "1-5/2 1 * * mon", "0 0 1 * 5-7"],
    ["0 0 L * *", "0 0 */2 * 1"],
)


def section(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the keys; those that end in an underscore always."""
    needed = {key.rstrip("_"): value for key, value in keys.items() if key.endswith("_")}
    others = {key: value for key, value in keys.items() if not key.endswith("_")}
    return st.fixed_dictionaries(needed, optional=others)


SOURCES = st.one_of(
    section(type_=st.just("sqlite"), path_=PATHS),
    section(type_=st.just("files"), path_=PATHS),
    section(
        type_=st.just("redis"),
        url_=HOSTS.map(lambda host: f"redis://{host}:6379"),
        password_env=VARIABLES,
    ),
    section(
        type_=st.just("redis"),
        url_=HOSTS.map(lambda host: f"rediss://{host}"),
        password_file=SECRET_FILES,
        tls_ca=SECRET_FILES,
    ),
    section(
        type_=st.just("chroma"),
        url_=HOSTS.map(lambda host: f"https://{host}"),
        headers_env=st.dictionaries(st.just("Authorization"), VARIABLES, max_size=1),
    ),
)
JOBS = section(
    kind_=st.sampled_from(["backup", "verify", "prune"]),
    schedule_=CRONS,
    timezone=st.sampled_from(["UTC", "Asia/Seoul"]),
    catch_up=st.booleans(),
    timeout=st.integers(1, 10**6),
    retries=st.integers(0, 70),
    retry_delay=st.integers(1, 10**5),
)
SERVICES = section(
    kubernetes_=st.sampled_from(["deployment/a", "statefulset/on"]),
    namespace=st.sampled_from(["y", "other"]),
    health=HOSTS.map(lambda host: f"http://{host}:8001/health"),
)
VOLUMES = st.fixed_dictionaries(
    {"claim": st.sampled_from(["data", "a.b", "y"])},
    optional={
        "sub_path": st.sampled_from(["a", "a/b"]),
        "read_only": mostly([False], [True]),
        "used_by": LABELS,
        "size": mostly(["1Gi"], ["10G", "1e3"]),
        "access_mode": mostly(["ReadWriteOnce"], ["ReadWriteMany"]),
    },
)
MOUNTS = st.fixed_dictionaries(
    dict.fromkeys(("/data", "/backup", "/장면"), VOLUMES),
    optional={
        "/var/lib/safetake": VOLUMES,
        "/data/inner": VOLUMES,
        "/elsewhere": VOLUMES,
        "/run/x": mostly([{"claim": "a"}], [{"claim": "y", "read_only": True}]),
    },
)
KUBERNETES = section(
    image_=st.just(IMAGE),
    name=st.sampled_from(["safetake", "y", "x" * 30]),
    namespace=st.sampled_from(["y", "default", "1"]),
    user=mostly([1000, 2**31 - 1], [0, -1]),
    secrets=mostly([{}, {"TOKEN": "other/key"}, {"/etc/safetake/a/b": "y/y"}], [{"NO": "x/y"}]),
    same_node=st.sampled_from(["required", "preferred"]),
    labels=LABELS,
    pod_annotations=st.dictionaries(st.sampled_from(["a", "example.com/b"]), TEXT, max_size=2),
    node_selector=LABELS,
    tolerations=st.lists(
        section(key_=st.just("y"), value=st.just("1e3"), effect=st.just("NoSchedule")), max_size=2
    ),
    network_policy=st.booleans(),
    metrics_from=LABELS,
    redis_restores=st.booleans(),
    monitoring=st.booleans(),
)


@st.composite
def configurations(draw: st.DrawFn) -> str:
    kubernetes = draw(KUBERNETES)
    mounts = draw(MOUNTS)
    kubernetes["volumes"] = {
        f"v{number}": {"mount": mount, **volume}
        for number, (mount, volume) in enumerate(mounts.items())
    }
    document = {
        "repository": draw(section(location_=PATHS, password_file=SECRET_FILES)),
        "sources": draw(st.dictionaries(NAMES, SOURCES, min_size=1, max_size=3)),
        "jobs": draw(st.dictionaries(NAMES.map("job.".__add__), JOBS, min_size=1, max_size=2)),
        "services": draw(st.dictionaries(NAMES, SERVICES, max_size=2)),
        "daemon": {"listen": draw(mostly(["0.0.0.0:9760", ":80", "127.0.0.1:1"], ["x", ""]))},
        "notify": draw(section(urls_env=VARIABLES, urls_file=SECRET_FILES)),
        "kubernetes": kubernetes,
    }
    lines = "".join(f"{key} = {toml(each)}\n" for key, each in document.items())
    return f"# {draw(TEXT)}\n{lines}"


def toml(value: Any) -> str:
    """TOML on one line: JSON's strings, inline tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def rendered(text: str, mode: Mode) -> Any:
    try:
        return make_plan(text, Path("here.toml"), mode)
    except ConfigError as error:
        refused = error
    lines = str(refused).splitlines()
    assert refused.hint
    assert all(line.startswith("here.toml: ") for line in lines)
    return None


@settings(max_examples=50)
@given(text=configurations(), mode=st.sampled_from(["cronjobs", "daemon"]))
def test_it_renders_as_valid_objects_or_is_refused(text: str, mode: Mode) -> None:
    plan = rendered(text, mode)
    if plan is None:
        return
    documents = objects(plan)
    assert list(yaml.safe_load_all(to_yaml(documents))) == documents
    for document in documents:
        if document["kind"] not in CUSTOM:
            validate(document)
    for pod in pods(documents):
        assert broken(pod["spec"]) == []
        for names in (pod["spec"]["volumes"], pod["spec"]["containers"][0]["env"]):
            assert len({each["name"] for each in names}) == len(names)
        mounts = pod["spec"]["containers"][0]["volumeMounts"]
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert {mount["name"] for mount in mounts} == {
            each["name"] for each in pod["spec"]["volumes"]
        }
        closed = [mount["mountPath"] + "/" for mount in mounts if mount.get("readOnly")]
        assert not any(mount["mountPath"].startswith(tuple(closed)) for mount in mounts)


@pytest.mark.slow
@settings(max_examples=100)
@given(text=configurations(), mode=st.sampled_from(["cronjobs", "daemon"]))
def test_the_chart_renders_the_same_of_any(
    text: str, mode: Mode, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan = rendered(text, mode)
    if plan is not None:
        folder = tmp_path_factory.mktemp("values")
        charts = rendered_by_helm(chart_values(plan), folder, plan.namespace)
        assert normal(charts) == normal(objects(plan))
