"""`safetake demo`: the whole story on a throw-away sample application."""

from __future__ import annotations

import click

from safetake.cli.common import Command, Settings, pass_settings


@click.command(cls=Command)
@click.option("--keep", is_flag=True, help="Keep the folder of the demo, and say where it is.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=10.0,
    show_default=True,
    help="How long the application is written to before the disaster, at least.",
)
@pass_settings
def command(settings: Settings, keep: bool, seconds: float) -> int:
    """The whole story on a throw-away application.

    Starts a sample application on real stores, takes snapshots while it is written to, destroys
    everything, restores, starts it again on the result, and compares with what was acknowledged.
    Exit code 1 when anything came back wrong.
    """
    from safetake.cli import output
    from safetake.demo import run_demo

    def echo(text: str) -> None:
        if not settings.quiet:
            output.line(output.printable_lines(text))

    report = run_demo(keep=keep, seconds=seconds, json=settings.json, echo=echo)
    if settings.json:
        output.document(report.as_dict())
    else:
        output.line()
        output.line(output.printable_lines(report.render()))
        if report.kept:
            output.line(f"\nkept: {report.kept}")
    return 0 if report.ok else 1
