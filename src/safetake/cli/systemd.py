"""`safetake systemd`: units that run the jobs of the configuration."""

from __future__ import annotations

from pathlib import Path

import click

from safetake.cli.common import Command, Settings, pass_settings


@click.command(cls=Command)
@click.option("--daemon", is_flag=True, help="One service that runs all jobs, instead of timers.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the files there, such as /etc/systemd/system; default: print them.",
)
@click.option(
    "--program",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The safetake that the units start; default: the one on the PATH.",
)
@pass_settings
def command(settings: Settings, daemon: bool, output: Path | None, program: Path | None) -> int:
    """Write units of systemd: a timer for each job with a schedule, or the daemon.

    The units may write nowhere but where the configuration says. Existing files are replaced.
    """
    from safetake.cli import output as out
    from safetake.operate.systemd import daemon_units, timer_units

    path = settings.find().absolute()
    config = settings.load()
    program = (program or _program()).absolute()
    units = (daemon_units if daemon else timer_units)(config, path, program)
    if output is not None:
        _write(output, [(unit.name, unit.text) for unit in units])
    if settings.json:
        out.document({"units": {unit.name: unit.text for unit in units}})
    elif output is None:
        for unit in units:
            out.line(f"# {unit.name}")
            out.line(unit.text)
    elif not settings.quiet:
        for unit in units:
            out.line(str(output / unit.name))
        startable = [unit.name for unit in units if "@." not in unit.name]
        out.line(f"Next: systemctl daemon-reload && systemctl enable --now {' '.join(startable)}")
    return 0


def _program() -> Path:
    import shutil

    found = shutil.which("safetake")
    return Path(found) if found else Path("/usr/local/bin/safetake")


def _write(folder: Path, files: list[tuple[str, str]]) -> None:
    from safetake.errors import SafetakeError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files:
            beside = folder / f".{name}.new"
            beside.write_text(text, encoding="utf-8")
            beside.rename(folder / name)
    except OSError as error:
        raise SafetakeError(
            f"{error.filename or folder} cannot be written: {error.strerror}",
            hint="run it as root, or name another folder",
        ) from error
