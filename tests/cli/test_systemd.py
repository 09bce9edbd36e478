"""`safetake systemd`: units printed, or written."""

from __future__ import annotations

from tests.cli.conftest import Workplace


def test_the_command_prints_or_writes_them(workplace: Workplace) -> None:
    path = workplace.folder / "safetake.toml"
    path.write_text(path.read_text() + 'schedule = "0 3 * * *"\n')
    shown = workplace.run("systemd", "--program", "/bin/true").stdout
    assert "# safetake-job@nightly.timer\n" in shown
    assert "OnCalendar=*-*-* 03:00:00 UTC\n" in shown
    done = workplace.run("systemd", "--program", "/bin/true", "--output", "units").stdout
    assert "enable --now safetake-job@nightly.timer\n" in done
    assert (workplace.folder / "units" / "safetake-job@nightly.timer").exists()
    found = workplace.json("systemd", "--daemon", "--program", "/bin/true")
    assert list(found["units"]) == ["safetake.service"]
