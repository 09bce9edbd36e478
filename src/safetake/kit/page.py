"""The page itself: what to do first, where the repository is, what is needed, the exact commands.

It is Markdown that is read on paper as well, by somebody who has never seen any of it. Its commands
stand in `console` blocks, and the check (`kit.rehearse`) runs exactly these, so the page can not
promise what does not work.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from safetake.clock import go_time
from safetake.kit.configuration import HIDDEN
from safetake.wording import duration, printable, size

if TYPE_CHECKING:
    from safetake.kit.collect import Group, Kit, Place, Store
    from safetake.snapshots import SnapshotInfo

PASSWORD_FILE = "kit.password"
CONFIG_FILE = "kit.toml"
RESTORED = "restored"
PLAIN = "plain"
WHOLE = ("sqlite", "redis", "files")
"""Types whose files restic alone brings back: nothing of them is stored in parts."""
MEASURED = {RESTORED: "safetake_seconds", PLAIN: "restic_seconds"}
"""By folder: what a rehearsal measured of the way that fills it."""


def markdown(kit: Kit) -> str:
    """The page."""
    lines = [
        f"# Recovery kit of {_text(kit.host)}",
        "",
        f"Made on {kit.made} by safetake {kit.version} from "
        f"`{_text(kit.configuration_file)}`. With this page, the repository and its password "
        "everything comes back, on any Linux machine, into a new folder.",
        "",
        "**First:** stop the application. Write nothing to what is left of its data or of the "
        "repository: no repair, no clean-up, no new backup. Write down the time. Then go through "
        "the numbers; nothing before 5 touches what is there.",
        "",
        *_facts(kit),
        "",
        *_password(kit),
        "",
        *_with_safetake(kit),
        "",
        *_without(kit),
        "",
        *_older(kit),
        "",
        *_stores(kit),
        "",
        *_configuration(kit),
        "",
    ]
    return "\n".join(lines)


def _facts(kit: Kit) -> list[str]:
    first, newest = kit.first, kit.newest
    where = f"`{_text(first.location)}` on {_text(kit.host)}, id `{kit.repository[:16]}`"
    if first.shares:
        where += f". **On the disk of {', '.join(first.shares)}: what destroys that takes both**"
    elif not kit.copies:
        where += ". There is no second copy"
    rows = [("repository", where)]
    rows += [
        (f"copy {one.name}", f"`{_text(one.location)}`, password: {_kept(one)}; {_text(one.state)}")
        for one in kit.copies
    ]
    keys = [
        f"{_text(key.username)}@{_text(key.hostname)} {key.created[:10]}"
        + (" (this one)" if key.current else "")
        for key in kit.keys
    ]
    holds = ", ".join(f"{_type(one)} ({size(one.bytes)})" for one in kit.stores.values())
    if kit.missing:
        holds += f". **Never backed up: {', '.join(kit.missing)}**"
    rows += [
        ("password", f"{_kept(first)} on {_text(kit.host)}; {_also(first)}"),
        ("passwords that open it", f"{len(keys)}, made by " + ", ".join(keys)),
        ("newest snapshot then", _snapshot(newest) if newest is not None else "none"),
        *(("DAMAGED", f"**{_text(one)}**") for one in kit.damaged),
        ("what comes back", holds),
        ("room", f"{size(kit.bytes)} for each way; the second needs twice what is Chroma's"),
        ("time", _time(kit)),
    ]
    return ["| | |", "| --- | --- |", *(f"| {key} | {_cell(value)} |" for key, value in rows)]


def _also(place: Place) -> str:
    if place.password is not None:
        return "and on this page"
    return "**without it nothing comes back**; also kept at: ______________________"


def _kept(place: Place) -> str:
    return _text(place.password_place)


def _snapshot(one: SnapshotInfo) -> str:
    return f"`{one.id[:8]}` of {_minute(one)}, proof: {one.rung.name}"


def _minute(one: SnapshotInfo) -> str:
    return go_time(one.time_ns)[:16].replace("T", " ") + " UTC"


def _time(kit: Kit) -> str:
    last = kit.rehearsed
    if last is None:
        return "this page was never rehearsed (`safetake kit --check` does it)"
    when = go_time(last.ended_ns)[:10]
    if last.verdict != "passed":
        return f"**the last rehearsal of this page FAILED on {when}**"
    took = [
        f"{duration(last.measured[key])} {words}"
        for key, words in (
            (MEASURED[RESTORED], "with safetake"), (MEASURED[PLAIN], "with restic"),
        )
        if key in last.measured
    ]  # fmt: skip
    held = f" for {size(last.measured['bytes'])}" if "bytes" in last.measured else ""
    return f"rehearsed on {when}: {', '.join(took) or 'passed'}{held}"


def _password(kit: Kit) -> list[str]:
    lines = ["## 1. The password", ""]
    if kit.first.password is None:
        lines.append(
            f"It is not on this page. In a new, empty folder with enough room, where all else "
            f"happens, too: `umask 077; cat > {PASSWORD_FILE}`, then type it, Enter, and Ctrl-D."
        )
    else:
        lines += [
            "**Whoever has this page and the repository has the data.** In a new, empty folder "
            "with enough room:",
            "",
            "```console",
            f"$ {_write_password(kit.first.password)}",
            "```",
        ]
    lines += [
        "",
        f"Is the repository at another place now, or gone? Write the new place"
        f"{' (or that of a copy)' if kit.copies else ''} wherever a command says "
        f"`{_text(kit.first.location)}`.",
    ]
    for one in kit.copies:
        if one.password is not None:
            lines += ["", f"Only for the copy {one.name}:", "", "```sh"]
            lines += [_write_password(one.password), "```"]
        else:
            lines[-1] += f" The copy {one.name} has a password of its own."
    return lines


def _write_password(password: str) -> str:
    return f"umask 077; printf '%s\\n' {shlex.quote(password)} > {PASSWORD_FILE}"


def _with_safetake(kit: Kit) -> list[str]:
    minimal = f"[repository]\nlocation = {json.dumps(kit.first.location, ensure_ascii=False)}\n"
    minimal += f'password_file = "{PASSWORD_FILE}"\n'
    safetake = f"safetake --config {CONFIG_FILE}"
    lines = [
        "## 2. With safetake",
        "",
        f"`python3 -m venv venv && . venv/bin/activate && pip install safetake=={kit.version}` or "
        "newer (Python 3.11 or newer). Not to be had, or no network? Go to 3, which needs nothing "
        "of it. Type what stands after each `$`.",
        "",
        "```console",
        f"$ printf '%s' {shlex.quote(minimal)} > {CONFIG_FILE}",
        f"$ {safetake} snapshots",
        f"$ {safetake} check",
    ]
    for number, group in enumerate(kit.groups):
        more = " --overwrite" if number else ""
        names = " ".join(map(shlex.quote, group.sources))
        lines.append(f"$ {safetake} restore latest {names} --to {RESTORED}{more}")
    return [
        *lines,
        "```",
        "",
        f"Or with questions, a clock and a report: `{safetake} runbook`.",
    ]


def _without(kit: Kit) -> list[str]:
    restic = f"restic -r {shlex.quote(kit.first.location)} --password-file {PASSWORD_FILE}"
    lines = [
        "## 3. Without safetake",
        "",
        "restic 0.14 or newer (`apt install restic`, or one file from "
        "github.com/restic/restic/releases, to be fetched on another machine, too) and Python 3.8 "
        "or newer are enough:",
        "",
        "```console",
        f"$ {restic} snapshots --tag safetake",
    ]
    for group in kit.groups:
        chosen = " ".join(f"--path {shlex.quote('/' + name)}" for name in group.sources)
        if len(kit.groups) > 1:
            wanted = [*("/" + name for name in group.sources), "/.safetake"]
            chosen += "".join(f" --include {shlex.quote(one)}" for one in wanted)
        lines.append(f"$ {restic} restore latest --tag backup \\\n    {chosen} --target {PLAIN}")
        if any(kit.stores[name].type not in WHOLE for name in group.sources):
            lines.append(f"$ python3 {PLAIN}/.safetake/join.py {PLAIN}")
    return [*lines, "```"]


def _older(kit: Kit) -> list[str]:
    lines = [
        "## 4. Is it the right snapshot?",
        "",
        "`latest` is the newest. Is it damaged, or was the data already wrong when it was made? "
        "Take the id of an older one from the list instead of `latest`, and a new folder. What "
        "`check` finds forbids no restore: every byte that comes back is compared with its hash.",
    ]
    if len(kit.groups) > 1:
        parts = "; ".join(f"{', '.join(one.sources)}: {_of(one)}" for one in kit.groups)
        lines[-1] += f"\n\n**Several jobs, several moments** ({parts}): the stores may not agree. "
        lines[-1] += (
            "For one moment, maybe an older one, give every command one id, of a snapshot that "
            "has all of them"
            + (
                f", such as {_snapshot(kit.whole)}."
                if kit.whole is not None
                else ": there is none."
            )
        )
    return lines


def _of(group: Group) -> str:
    return _minute(group.snapshot) if group.snapshot is not None else "never"


def _stores(kit: Kit) -> list[str]:
    lines = [
        "## 5. Start the stores on what came back",
        "",
        f"Each source is a folder in `{RESTORED}` (or `{PLAIN}`). Move away what is left at its "
        "place, never delete it. Give everything to the user of its service then (`chown`).",
        "",
        "| source | its place | how |",
        "| --- | --- | --- |",
        *(
            f"| `{one.name}` | {_cell(f'`{_text(one.target)}`' if one.target else '')} "
            f"| {_how(one)} |"
            for one in kit.stores.values()
        ),
    ]
    if kit.services:
        lines += ["", "Then the services, in this order:", ""]
        lines += [
            f"{number}. {name}" + (f": {said}" if said else "")
            for number, (name, said) in enumerate(kit.services, 1)
        ]
    return [*lines, "", "Then search, write and read in the application, and make a new backup."]


def _how(store: Store) -> str:
    if store.served:
        return (
            "an export: `collection.json` and `records.jsonl` of each collection go in by the API"
        )
    return {
        "sqlite": f"copy `{store.name}/{_text(store.file)}` there, with no old `-wal`, `-shm` or "
        "`-journal` beside it",
        "chroma": f"the whole folder `{store.name}` becomes that folder; then start Chroma",
        "redis": f"all of `{store.name}` into the empty `dir` of a stopped Redis. Is `README.txt` "
        "in it? Do what it says. Else start with `--appendonly no`: with `yes` Redis ignores "
        "`dump.rdb` and begins EMPTY; turn it on again by `CONFIG SET appendonly yes`",
        "files": f"copy what is in `{store.name}` there",
    }.get(store.type, "see docs/how-to/restore-with-restic.md")


def _type(store: Store) -> str:
    return f"{store.name}: {store.type}"


def _configuration(kit: Kit) -> list[str]:
    lines = [
        "## The configuration that was in use",
        "",
        f"What a restore needs of it. Below the lines of `{CONFIG_FILE}` it lets `runbook` and "
        "`restore --in-place` put everything at its place and start the services.",
    ]
    if HIDDEN in kit.configuration:
        lines[-1] += f" `{HIDDEN}` stands for a secret."
    return [*lines, "", "```toml", kit.configuration.rstrip().replace("```", "` ` `"), "```"]


def _text(text: str) -> str:
    """On one line, and not to be taken for Markdown's code."""
    return printable(text).replace("`", "'")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands(page: str) -> list[str]:
    """The commands of a page, in order."""
    found: list[str] = []
    inside = False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(line[2:])
        elif inside and found:
            found[-1] += "\n" + line
    return found
