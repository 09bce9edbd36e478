"""The configuration: what is accepted, how mistakes are named, and that no secret is ever shown."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake import configfile, password
from safetake.config import NAME, Config, FilesConfig, RedisConfig, RepositoryConfig, json_schema
from safetake.errors import ConfigError

REPOSITORY = '[repository]\nlocation = "repo"\npassword_file = "password"\n'
SQLITE = '[sources.projects]\ntype = "sqlite"\npath = "projects.db"\n'
FILE = Path("/somewhere/safetake.toml")


def parse(text: str) -> Config:
    return configfile.parse(text, FILE)


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_whole_file_is_read() -> None:
    config = parse(
        REPOSITORY
        + SQLITE
        + """
        busy_timeout = 9
        [[sources.projects.checks]]
        name = "orphans"
        sql = "SELECT 1 WHERE 0"
        [sources.vectors]
        type = "chroma"
        path = "/data/chroma"
        [sources.queue]
        type = "redis"
        url = "redis://127.0.0.1:6379"
        [sources.scripts]
        type = "files"
        path = "scripts"
        exclude = ["*.tmp"]
        [jobs.nightly]
        kind = "backup"
        sources = ["projects", "vectors"]
        [barrier]
        timeout = 1.5
        """
    )
    assert list(config.sources) == ["projects", "vectors", "queue", "scripts"]
    assert config.jobs["nightly"].sources == ["projects", "vectors"]
    assert config.barrier.timeout == 1.5


def test_relative_paths_are_relative_to_the_file() -> None:
    config = parse(REPOSITORY + SQLITE)
    assert config.repository.location == "/somewhere/repo"
    assert config.repository.password_file == Path("/somewhere/password")
    source = config.sources["projects"]
    assert source.type == "sqlite"
    assert source.path == Path("/somewhere/projects.db")


def test_home_and_nothing_else_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("X", "no")
    config = parse('[repository]\nlocation = "~/repo$X"\n')
    assert config.repository.location == "/home/me/repo$X"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (REPOSITORY + SQLITE.replace("path", "paht"), "unknown key (did you mean 'path'?)"),
        (REPOSITORY + SQLITE.replace('"sqlite"', '"sqlit"'), "(did you mean 'sqlite'?)"),
        (REPOSITORY + SQLITE.replace('type = "sqlite"\n', ""), "sources.projects.type: is missing"),
        (REPOSITORY.replace("location", "locaton"), "(did you mean 'location'?)"),
        (REPOSITORY + "[reposotory]\n", "(did you mean 'repository'?)"),
        (
            REPOSITORY + '[jobs.x]\nkind = "drill"\nscenario = "total-los"\n',
            "no scenario 'total-los'",
        ),
        (
            REPOSITORY + '[drill.services.x]\ncommand = ["x"]\nuses = ["project"]\n',
            "drill.services.x.uses: there is no source 'project'",
        ),
        (
            REPOSITORY + '[drill.services.x]\ncommand = ["x"]\ncontains = "ok"\n',
            "contains goes with health",
        ),
        (REPOSITORY + '[jobs.x]\nkind = "backpu"\n', "must be one of 'backup'"),
        (REPOSITORY + '[jobs.x]\nkind = "backup"\nschedule = "0 25 * * *"\n', "no cron expression"),
        (REPOSITORY + '[jobs.x]\nkind = "backup"\ntimezone = "Asia/Soul"\n', "no time zone"),
        (REPOSITORY + '[jobs.x]\nkind = "copy"\nto = "off"\n', "there is no copy 'off'"),
        (REPOSITORY + '[sources.x]\ntyp = "files"\npath = "x"\n', "'typ' is no key, did you mean"),
        (REPOSITORY + '[jobs.x]\nkind = "copy"\n', "to goes with kind `copy`"),
        (REPOSITORY + '[jobs.x]\nkind = "backup"\ntimout = "1h"\n', "did you mean 'timeout'"),
        (REPOSITORY + '[retention]\ndaily = "30 days"\n', "no span of the calendar"),
        (REPOSITORY + '[retention.jobs.x]\ndaily = "30d"\n', "there is no job 'x'"),
        (REPOSITORY + '[references.r.from]\nsource = "a"\nsqll = "x"\n', "did you mean 'sql'"),
        (
            REPOSITORY + '[references.r.from]\nsource = "a"\nkeys = "job:*"\n',
            "keys needs {id} once",
        ),
        (
            REPOSITORY + '[references.r.from]\nsource = "a"\nsql = "x"\ndb = 1\n',
            "db goes with keys",
        ),
        (
            REPOSITORY
            + SQLITE
            + '[references.r]\nfrom = {source = "projects", files = "{id*}"}\n'
            + 'to = {source = "projects", sql = "SELECT 1"}\n',
            "projects is of type sqlite, which is asked by sql, not by files",
        ),
        (
            REPOSITORY + SQLITE + '[jobs.x]\nkind = "backup"\nsources = ["project"]\n',
            "jobs.x.sources: there is no source 'project' (did you mean 'projects'?)",
        ),
        (REPOSITORY + SQLITE + '[jobs.projects]\nkind = "backup"\n', "both a job and a source"),
        (REPOSITORY + '[sources.".."]\ntype = "files"\npath = "x"\n', "source name '..'"),
        (REPOSITORY + '[sources."a/b"]\ntype = "files"\npath = "x"\n', "source name 'a/b'"),
        (
            REPOSITORY + SQLITE + '[sources.Projects]\ntype = "files"\npath = "x"\n',
            "differ only in case",
        ),
        (REPOSITORY + "password_env = 'X'\n", "only one of password_file, password_env"),
        ('[repository]\nlocation = "s3://bucket/x"\n', "local folders only"),
        ('[repository]\nlocation = " "\n', "repository.location: is empty"),
        ('[repository]\nlocation = "~nobodyhere/x"\n', "no such home folder"),
        ('[repository]\nlocation = "a\\u0000b"\n', "NUL"),
        (SQLITE, "repository: is missing"),
        (REPOSITORY + '[sources.c]\ntype = "chroma"\n', "exactly one of path and url"),
        (
            REPOSITORY + '[sources.q]\ntype = "redis"\nurl = "http://x"\n',
            "sources.q.url: must begin with redis://",
        ),
        (REPOSITORY + SQLITE + "busy_timeout = 0\n", "sources.projects.busy_timeout: should be"),
        (REPOSITORY + "[barrier]\ntimeout = inf\n", "barrier.timeout: should be a finite number"),
        (
            REPOSITORY + '[sources.all]\ntype = "files"\npath = "/somewhere"\n',
            "sources.all.path: the repository lies inside this folder",
        ),
        ("[repository\n", "line 1"),
        ("a = 1\na = 2\n", "line 2"),
        ("a = " + "[" * 5000, "nested too deep"),
    ],
)
def test_mistake_is_named(text: str, said: str) -> None:
    message = mistake(text)
    assert message.startswith(f"{FILE}: ")
    assert said in message


def test_every_mistake_is_a_line() -> None:
    message = mistake(REPOSITORY + SQLITE + "wrong = 1\n[barrier]\nattempts = 0\n")
    assert len(message.splitlines()) == 2


SECRET = "hunter2-äöü"


@pytest.mark.parametrize(
    "text",
    [
        f'[sources.q]\ntype = "redis"\nurl = "redis://:{SECRET}@host"\n',
        f'[sources.q]\ntype = "redis"\nurl = "redis://:{SECRET}@[::"\n',
        f'[sources.q]\ntype = "redis"\nurl = "redis://:{SECRET}@a\\u2100b"\n',
        f'[sources.q]\ntype = "redis"\nurl = "redis://h"\npassword = "{SECRET}"\n',
        f'[sources.c]\ntype = "chroma"\nurl = "http://me:{SECRET}@host"\n',
        f'[sources.c]\ntype = "chroma"\npath = "x"\nheaders = "{SECRET}"\n',
        f'[jobs.x]\nkind = "{SECRET}"\n',
        f'password = "{SECRET}"\n',
        f'password = "{SECRET}\n',
    ],
)
def test_no_value_is_repeated_in_a_mistake(text: str) -> None:
    assert SECRET not in mistake(text + REPOSITORY)


def test_headers_are_not_shown() -> None:
    config = parse(
        REPOSITORY
        + f'[sources.c]\ntype = "chroma"\nurl = "http://h"\nheaders = {{X-Token = "{SECRET}"}}\n'
    )
    assert SECRET not in repr(config)


@given(st.text(max_size=80))
def test_source_name_is_a_safe_folder_name_or_a_mistake(name: str) -> None:
    data: dict[str, Any] = {
        "repository": {"location": "/r"},
        "sources": {name: {"type": "files", "path": "/x"}},
    }
    try:
        Config.model_validate(data)
    except ValueError:
        assert not NAME.fullmatch(name)
    else:
        assert "/" not in name
        assert not name.startswith((".", "-"))
        assert name.isascii()
        assert name.isprintable()


toml_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "repository",
                    "sources",
                    "jobs",
                    "barrier",
                    "type",
                    "path",
                    "location",
                    "kind",
                    "sqlite",
                    "files",
                    "checks",
                    "url",
                    "exclude",
                    "headers",
                    "timeout",
                    "x",
                ]
            )
            | st.text(max_size=8),
            inner | st.sampled_from(["sqlite", "chroma", "redis", "files", "backup"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["repository", "sources", "jobs", "barrier"]), toml_like))
def test_any_shape_is_a_config_or_a_config_error(data: dict[str, Any]) -> None:
    """A mistake of any shape is worded, never an unexpected exception."""
    import json
    import tomllib
    from unittest import mock

    with mock.patch.object(tomllib, "loads", lambda text: json.loads(text)):
        with contextlib.suppress(ConfigError):
            configfile.parse(json.dumps(data), FILE)


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_find_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAFETAKE_CONFIG", raising=False)
    given, by_variable, here = tmp_path / "a.toml", tmp_path / "b.toml", Path("safetake.toml")
    for path in (given, by_variable, here):
        path.write_text("")
    assert configfile.find() == here
    monkeypatch.setenv("SAFETAKE_CONFIG", str(by_variable))
    assert configfile.find() == by_variable
    assert configfile.find(given) == given
    with pytest.raises(ConfigError, match=r"no configuration file .*gone\.toml"):
        configfile.find(tmp_path / "gone.toml")


def test_unreadable_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can not be read"):
        configfile.load(tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        configfile.load(bad)


def test_schema_is_published() -> None:
    """On a difference: ./dev schema"""
    published = Path(__file__).parent.parent / "docs" / "config.schema.json"
    assert published.read_text(encoding="utf-8") == json_schema()


# ------------------------------------------------------------------------------------ password


def of(**keys: Any) -> RepositoryConfig:
    return RepositoryConfig(location="/r", **keys)


def test_password_from_a_file_without_white_space(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_bytes(b"\xef\xbb\xbf  two words \r\n")
    assert password.read_password(of(password_file=file)) == "two words"


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_password_file_without_password(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "p"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="password file"):
        password.read_password(of(password_file=file))
    with pytest.raises(ConfigError, match="can not be read"):
        password.read_password(of(password_file=tmp_path / "gone"))


def test_password_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in password.FALLBACKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MINE", raising=False)
    with pytest.raises(ConfigError, match="MINE"):
        password.read_password(of(password_env="MINE"))
    monkeypatch.setenv("MINE", " mine ")
    assert password.read_password(of(password_env="MINE")) == " mine "
    with pytest.raises(ConfigError, match="nowhere"):
        password.read_password(of())
    monkeypatch.setenv("RESTIC_PASSWORD", "restic's")
    assert password.read_password(of()) == "restic's"
    monkeypatch.setenv("SAFETAKE_PASSWORD", "ours")
    assert password.read_password(of()) == "ours"


def test_password_from_a_command_without_a_shell() -> None:
    python = sys.executable
    assert (
        password.read_password(of(password_command=f"{python} -c 'print(\"a $HOME; b\")'"))
        == "a $HOME; b"
    )
    for command, said in [
        (f"{python} -c 'print(\"{SECRET}\"); exit(3)'", "exit code 3"),
        (f"{python} -c pass", "printed nothing"),
        ("/no/such/program", "can not be run"),
        ("'unbalanced", "No closing quotation"),
        (" ", "empty"),
    ]:
        with pytest.raises(ConfigError, match=said) as caught:
            password.read_password(of(password_command=command))
        assert SECRET not in str(caught.value)


def test_new_password_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "new" / "password"
    old = os.umask(0)
    try:
        password.create_file(file)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password.file_problem(file) is None
    first = password.read_file(file)
    assert len(first) >= 40
    with pytest.raises(ConfigError, match="can not be written"):
        password.create_file(file)
    assert password.read_file(file) == first
    file.chmod(0o644)
    assert "0644" in str(password.file_problem(file))


def test_models_work_without_a_file() -> None:
    assert FilesConfig(type="files", path=Path("x")).path == Path("x")
    with pytest.raises(ValueError, match="only one of"):
        RedisConfig(type="redis", url="redis://h", password_env="A", password_file=Path("b"))


def test_places_of_metrics() -> None:
    metrics = parse(
        REPOSITORY
        + '[metrics]\ntextfile = "safetake.prom"\npushgateway = "http://gateway:9091/x"\n'
    ).metrics
    assert metrics.textfile == Path("/somewhere/safetake.prom")
    assert "must end in .prom" in mistake(REPOSITORY + '[metrics]\ntextfile = "safetake.txt"\n')
    for url in ("gateway:9091", "ftp://gateway", "http://"):
        assert "must begin with http" in mistake(REPOSITORY + f'[metrics]\npushgateway = "{url}"\n')
    assert "holds a password" in mistake(
        REPOSITORY + '[metrics]\npushgateway = "http://u:p@gateway:9091"\n'
    )
