"""`safetake kit`: the page to print, and the check that it is enough."""

from __future__ import annotations

from pathlib import Path

import click

from safetake.cli.common import Command, Settings, pass_settings


@click.command(cls=Command)
@click.option("--output", "target", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the page to FILE (mode 0600), never over another.")  # fmt: skip
@click.option("--with-password", is_flag=True, help="Put the password on the page.")
@click.option("--check", "check", is_flag=True,
              help="Run its commands in an empty folder with an empty HOME.")  # fmt: skip
@pass_settings
def command(settings: Settings, target: Path | None, with_password: bool, check: bool) -> int:
    """Print the recovery kit, or check that it is enough.

    One page to keep elsewhere: what to do first, where the repository is, what is needed, and the
    exact commands, with safetake and with stock restic. With --check every command of the page is
    run as written, with nothing but the repository and the page; both ways must bring back the
    same, and each store must answer as its snapshot says.
    """
    from safetake.cli import output
    from safetake.cli.newfile import write_new
    from safetake.errors import UsageError
    from safetake.kit.collect import make
    from safetake.kit.page import markdown
    from safetake.kit.rehearse import check_kit
    from safetake.operate.history import recorded
    from safetake.password import read_password

    if check and target is not None:
        raise UsageError(
            "--check writes no page",
            hint="write it afterwards with `safetake kit --output FILE`: it says when that was",
        )
    path = settings.find()
    config = settings.load()
    password = read_password(config.repository)
    with settings.open(config) as repository:
        kit = make(config, repository, path, with_password=with_password)
        page = markdown(kit)
        if check:
            if kit.newest is None:
                raise UsageError(
                    "there is no snapshot to check the kit with", hint="run `safetake backup`"
                )

            def told(words: str) -> None:
                if not (settings.json or settings.quiet):
                    output.note(output.printable_lines(f"  $ {words}"), whole=True)

            with recorded(config, "kit") as run:
                run.repository = repository
                document = check_kit(kit, repository, password, config.drill.scratch, told)
                run.exit_code = 0 if document.verdict == "passed" else 1
                run.facts |= {"evidence": document.id, "outcome": document.verdict}
            if settings.json:
                output.document(document.as_dict())
            else:
                for one in document.checks:
                    if not one.ok:
                        name = f"{one.source}: {one.name}" if one.source else one.name
                        output.note(output.printable_lines(f"problem: {name}: {one.found}"))
                if not settings.quiet:
                    output.line(f"the kit {document.verdict}: evidence {document.id[:8]}")
            return run.exit_code
    if target is not None:
        write_new(target, page.encode(), mode=0o600)
    if settings.json:
        output.document({"page": page, "file": str(target) if target else None})
    elif target is None:
        output.write(page)
    elif not settings.quiet:
        output.line(f"the kit is in {target}: print it, or keep it on another machine")
    return 0
