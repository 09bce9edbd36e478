"""`safetake evidence`: what proofs, restores and drills found: list it, check it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import Group, Settings, pass_settings

if TYPE_CHECKING:
    from safetake.config import Config
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
    from safetake.evidence import each
    from safetake.wording import counted, duration

    others = 0
    unreadable: dict[str, str] = {}
    found: list[tuple[int, str, Any]] = []
    with settings.open(settings.load()) as repository:
        for one in each(repository, unreadable):
            if (kind is not None and one.kind != kind) or (failed and one.verdict == "passed"):
                others += 1
            elif settings.json:
                found.append((one.ended_ns, one.id, one.as_dict()))
            else:
                row = [
                    one.id[:8],
                    local_time(one.ended_ns)[:16],
                    one.name if one.kind in one.name else f"{one.kind} {one.name}",
                    one.verdict,
                    duration((one.ended_ns - one.started_ns) / 1e9),
                    one.snapshot[:8],
                ]
                found.append((one.ended_ns, one.id, row))
    rows = [row for _, _, row in sorted(found, key=lambda one: one[:2])]
    if settings.json:
        output.document(rows)
    elif rows:
        heads = ["id", "ended", "what", "verdict", "took", "snapshot"]
        output.table(heads, rows, right=[4])
    elif others:
        output.line(f"none of {counted(others, 'document')} is like that")
    elif not unreadable:
        output.line("no evidence: `safetake verify` and `safetake drill` leave some")
    for text in unreadable.values():
        output.note(output.printable_lines(f"not listed: {text}"))
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
    from safetake.cli.newfile import write_new
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
    write_new(target, content)
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
    A review that was filled in is told apart from a fact that was edited.
    """
    from safetake.cli import output
    from safetake.evidence.exported import Compared, check_file
    from safetake.evidence.store import Chain
    from safetake.wording import counted

    config = settings.load()
    compared = Compared()
    with settings.open(config) as repository:
        # before the chain is read: what is proven meanwhile must not look as if it was missing
        known, notes = _known(config, repository)
        chain = Chain(repository)
        problems = chain.problems(known)
        if file is not None:
            compared = check_file(file, chain)
    if compared.problem:
        problems.append(compared.problem)
    if compared.filled_in:
        notes.append(f"{file}: review filled in, facts untouched")
    if settings.json:
        output.document(
            {"documents": len(chain), "ok": not problems, "problems": problems, "notes": notes}
        )
        return 1 if problems else 0
    for text in notes:
        output.note(output.printable_lines(f"note: {text}"))
    for problem in problems:
        output.note(output.printable_lines(f"problem: {problem}"))
    if not problems and not settings.quiet:
        failed = f"{chain.failed} of them tell of a failure" if chain.failed else ""
        output.paragraph(
            f"{counted(len(chain), 'document')}, the chain is whole; "
            + (failed or "none tells of a failure")
            + (f"; {file} is one of them" if file else "")
        )
    return 1 if problems else 0


def _find(repository: Repository, wanted: str) -> Evidence:
    """The document whose id begins so, or the newest. Raises UsageError, DamagedError."""
    from safetake.errors import DamagedError, UsageError
    from safetake.evidence.store import find

    found = find(repository, wanted)
    if len(found) == 1:
        return found[0]
    if not any(True for _ in repository.storage.list("evidence")):
        raise UsageError(
            "there is no evidence yet", hint="`safetake verify` and `safetake drill` leave some"
        )
    if wanted == "latest":
        raise DamagedError(
            "no document of evidence can be read", hint="`safetake evidence verify` names them"
        )
    what = "more than one document has" if found else "no document of evidence has"
    raise UsageError(
        f"{what} an id that begins with {wanted!r}",
        hint="list them with `safetake evidence list`",
    )


def _known(config: Config, repository: Repository) -> tuple[dict[str, str], list[str]]:
    """Ids that somebody wrote down, and who; and what of that could not be read."""
    from safetake.errors import DamagedError
    from safetake.operate.history import History

    known: dict[str, str] = {}
    notes = []
    for name, _ in repository.storage.list("proofs"):
        try:
            id_ = repository.load_document("proofs", name).get("evidence")
        except FileNotFoundError:
            continue  # removed since the listing
        except DamagedError as error:
            notes.append(f"the evidence that it names is not looked for: {error}")
        else:
            known |= {str(id_): "a proof names it"} if id_ else {}
    history = History(config, repository)
    for record in history.records():
        if id_ := record.facts.get("evidence"):
            known[str(id_)] = "the history names it"
    notes += [f"the history may name more: {text}" for text in history.trouble]
    return known, notes
