"""`safetake notify`: do notifications arrive, and what became of those so far?"""

from __future__ import annotations

import click

from safetake.cli.common import Group, Settings, pass_settings


@click.group(cls=Group)
def command() -> None:
    """Who hears of failures: try it, and see how delivery goes."""


@command.command("test")
@pass_settings
def test_command(settings: Settings) -> int:
    """Send a test message to everybody in [notify].

    Exit code 1 when somebody could not be told.
    """
    from safetake.cli import output
    from safetake.operate.notify import send_test

    found = send_test(settings.load())
    if settings.json:
        output.document(
            {
                "ok": not any(error for _, error in found),
                "targets": [
                    {"way": target.way, "ok": not error, "error": error} for target, error in found
                ],
            }
        )
    else:
        for target, error in found:
            if error:
                output.note(output.printable_lines(f"{target.way}: not delivered: {error}"))
            elif not settings.quiet:
                output.line(f"{target.way}: delivered")
    return 1 if any(error for _, error in found) else 0


@command.command("status")
@pass_settings
def status_command(settings: Settings) -> int:
    """Show what is told to whom, what waits, and what could not be delivered."""
    from safetake.cli import output
    from safetake.operate.notify import delivery
    from safetake.operate.notify.targets import targets

    config = settings.load()
    people, problems = targets(config)
    found = delivery(config)
    if settings.json:
        output.document(
            {
                "on": config.notify.on,
                "targets": [one.way for one in people],
                "configuration": problems,
                "pings": sorted(config.notify.ping_env),
                **found.as_dict(),
            }
        )
        return 0
    for text in problems:
        output.note(output.printable_lines(f"warning: {text}"))
    if settings.quiet:
        return 0
    pairs = [
        ("told of", ", ".join(config.notify.on) or "nothing"),
        ("told by", ", ".join(one.way for one in people) or "nobody"),
        ("pings of", ", ".join(sorted(config.notify.ping_env)) or "no job"),
        ("last delivered", _time(found.last_ns)),
        ("waiting", str(found.pending)),
        ("failed attempts", str(found.failures)),
    ]
    if found.dropped:
        pairs.append(("given up", str(found.dropped)))
    output.fields(pairs)
    for name, error in found.errors.items():
        output.line(output.printable_lines(f"{name}: the last attempt failed: {error}"))
    for name, since in found.problems.items():
        kind, _, what = name.partition(":")
        output.line(
            output.printable_lines(f"open: {kind} {what}".rstrip() + f", since {_time(since)}")
        )
    return 0


def _time(ns: int) -> str:
    from safetake.cli.snapshots import local_time

    return local_time(ns) if ns else "never"
