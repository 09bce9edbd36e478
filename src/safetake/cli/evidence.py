"""`safetake evidence`: what proofs, restores and drills found: list it, check it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from safetake.cli.common import Group, Settings, pass_settings

if TYPE_CHECKING:
    from safetake.evidence import Evidence
    from safetake.repository import Repository


@click.group(cls=Group)
def command() -> None:
    """What proofs, restores and drills found.

    Each left a document in the repository that names what was expected and what was found, and
    that the next one names by its hash.
    """


@command.command("list")
@click.option("--kind", type=click.Choice(["verify", "restore", "drill", "runbook", "kit"]),
              metavar="KIND", help="Only: verify, restore, drill, runbook or kit.")  # fmt: skip
@click.option("--failed", is_flag=True, help="Only what failed.")
@pass_settings
def list_(settings: Settings, kind: str | None, failed: bool) -> int:
    """List the documents, the newest last."""
    from safetake.cli import output
    from safetake.cli.snapshots import local_time
    from safetake.evidence import load_all
    from safetake.wording import counted, duration

    with settings.open(settings.load()) as repository:
        documents = load_all(repository)
    found = [
        one
        for one in documents
        if (kind is None or one.kind == kind) and not (failed and one.verdict == "passed")
    ]
    if settings.json:
        output.document([one.as_dict() for one in found])
        return 0
    if not found:
        output.line(
            f"none of {counted(len(documents), 'document')} is like that"
            if documents
            else "no evidence: `safetake verify` and `safetake drill` leave some"
        )
        return 0
    output.table(
        ["id", "ended", "what", "verdict", "took", "snapshot"],
        [
            [
                one.id[:8],
                local_time(one.ended_ns)[:16],
                one.name if one.kind in one.name else f"{one.kind} {one.name}",
                one.verdict,
                duration((one.ended_ns - one.started_ns) / 1e9),
                one.snapshot[:8],
            ]
            for one in found
        ],
        right=[4],
    )
    return 0


@command.command("show")
@click.argument("wanted", metavar="ID", default="latest")
@pass_settings
def show(settings: Settings, wanted: str) -> int:
    """Show one document as Markdown (or with --json as it is)."""
    from safetake.cli import output
    from safetake.evidence.report import markdown

    with settings.open(settings.load()) as repository:
        found = _find(repository, wanted)
    if settings.json:
        output.document(found.as_dict())
    else:
        output.write(output.printable_lines(markdown(found)))
    return 0


@command.command("export")
@click.argument("wanted", metavar="ID", default="latest")
@click.option("--output", "target", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="FILE.json (canonical, can be checked), FILE.html or FILE.md; never "
              "overwritten.")  # fmt: skip
@click.option("--language", type=click.Choice(["en", "ko"]), default="en", show_default=True,
              help="Of the headings and marks in HTML and Markdown.")  # fmt: skip
@pass_settings
def export(settings: Settings, wanted: str, target: Path, language: str) -> int:
    """Write one document to a file, for auditors and post-mortems."""
    from safetake.cli import output
    from safetake.errors import UsageError
    from safetake.evidence.report import html, markdown

    if target.suffix not in (".json", ".html", ".md"):
        raise UsageError(
            f"{target}: its name ends in none of .json, .html and .md",
            hint="the ending chooses the form",
        )
    with settings.open(settings.load()) as repository:
        found = _find(repository, wanted)
    if target.suffix == ".json":
        content = found.canonical()
    else:
        content = (html if target.suffix == ".html" else markdown)(found, language).encode()
    try:
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise UsageError(
            f"{target} exists already and is never overwritten", hint="name another file"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written: {error.strerror}",
            hint="name a file in a folder that is there and may be written",
        ) from error
    if settings.json:
        output.document({"id": found.id, "file": str(target), "bytes": len(content)})
    elif not settings.quiet:
        output.line(f"evidence {found.id[:8]} ({found.verdict}) written to {target}")
    return 0


@command.command("verify")
@click.argument("file", metavar="[FILE]", required=False,
                type=click.Path(path_type=Path, exists=True, dir_okay=False))  # fmt: skip
@pass_settings
def verify(settings: Settings, file: Path | None) -> int:
    """Check the chain of all documents, or an exported FILE against it.

    Exit code 1 when one was changed, is damaged or missing, or FILE is not what the one in the
    repository says; each is named. FILE is what `export` or a runbook wrote: .json, .html or .md.
    """
    from safetake.cli import output
    from safetake.evidence import load_all, verify_chain
    from safetake.evidence.exported import check_file
    from safetake.wording import counted

    config = settings.load()
    with settings.open(config) as repository:
        problems = verify_chain(repository, _known(settings, repository))
        documents = {one.id: one for one in load_all(repository)}
    if file is not None:
        problems += check_file(file, documents)
    if settings.json:
        output.document({"documents": len(documents), "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            output.note(output.printable_lines(f"problem: {problem}"))
        if not problems and not settings.quiet:
            failed = sum(one.verdict == "failed" for one in documents.values())
            output.paragraph(
                f"{counted(len(documents), 'document')}, the chain is whole; "
                + (f"{failed} of them tell of a failure" if failed else "none tells of a failure")
                + (f"; {file} is one of them" if file else "")
            )
    return 1 if problems else 0


def _find(repository: Repository, wanted: str) -> Evidence:
    """The document whose id begins so, or the newest. Raises UsageError."""
    from safetake.errors import UsageError
    from safetake.evidence import load_all

    documents = load_all(repository)
    if not documents:
        raise UsageError(
            "there is no evidence yet", hint="`safetake verify` and `safetake drill` leave some"
        )
    found = documents[-1:] if wanted == "latest" else [
        one for one in documents if wanted and one.id.startswith(wanted)
    ]  # fmt: skip
    if len(found) != 1:
        what = "more than one document has" if found else "no document of evidence has"
        raise UsageError(
            f"{what} an id that begins with {wanted!r}",
            hint="list them with `safetake evidence list`",
        )
    return found[0]


def _known(settings: Settings, repository: Repository) -> list[str]:
    """Ids that the history wrote down."""
    from safetake.operate.history import History

    records = History(settings.load(), repository).records()
    return [str(record.facts["evidence"]) for record in records if record.facts.get("evidence")]
