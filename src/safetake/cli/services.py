"""`safetake services`: the applications that use the data, and what restores need of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import Group, Settings, choose, complete_services, pass_settings
from safetake.errors import SafetakeError, ServiceError

if TYPE_CHECKING:
    from safetake.config import Config


@click.group(cls=Group)
def command() -> None:
    """The applications that use the data.

    A restore in place stops them, starts them again and asks whether they are well.
    """


@command.command("status")
@click.argument("names", metavar="[SERVICE]...", nargs=-1, shell_complete=complete_services)
@pass_settings
def status(settings: Settings, names: tuple[str, ...]) -> int:
    """Show what runs, and whether it is well.

    Each is asked once. Exit code 1 when one does not run, is not well or can not be asked.
    """
    from safetake.cli import output

    config = settings.load()
    chosen = choose(names or list(config.services), list(config.services), "service")
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(chosen)))) as pool:
        found = list(pool.map(lambda name: _look(config, name), chosen))
    bad = any(each["problem"] or each["health"] is False for each in found)
    bad = bad or any(each["running"] is False for each in found)
    if settings.json:
        output.document(found)
        return int(bad)
    if not found:
        output.line("no services: add a [services.NAME] section to the configuration")
        return 0
    rows = [
        [
            each["name"],
            "?" if each["running"] is None else "running" if each["running"] else "stopped",
            "-" if each["health"] is None else "well" if each["health"] else "NOT WELL",
            each["problem"] or each["answer"],
            ", ".join(each["uses"]),
            each["by"],
        ]
        for each in found
    ]
    output.table(["service", "state", "health", "it says", "uses", "by"], rows)
    return int(bad)


@command.command("check")
@click.argument("names", metavar="[SERVICE]...", nargs=-1, shell_complete=complete_services)
@pass_settings
def check(settings: Settings, names: tuple[str, ...]) -> int:
    """Look whether a restore could stop, start and switch them.

    Programs, units, containers, permissions and settings. Changes nothing. Exit code 1 when
    something is missing.
    """
    from safetake.cli import output
    from safetake.services import build_all

    config = settings.load()
    chosen = choose(names or list(config.services), list(config.services), "service")
    built = build_all(config)
    found = {name: built[name].problems() for name in chosen}
    bad = any(found.values())
    if settings.json:
        document = {
            name: [{"problem": text, "hint": hint} for text, hint in problems]
            for name, problems in found.items()
        }
        output.document({"ok": not bad, "services": document})
        return int(bad)
    for name, problems in found.items():
        for text, hint in problems:
            mark = output.style("FAIL", "31")
            output.line(f"{mark}  {name}: {output.printable_lines(text)}")
            if hint:
                output.line(f"      hint: {output.printable_lines(hint)}")
        if not problems and not settings.quiet:
            does = "can be stopped and started" if built[name].can_stop else "is only asked"
            mark = output.style("ok  ", "32")
            output.line(f"{mark}  {name}: {built[name].describe()}, {does}")
    return int(bad)


@command.command("rbac")
@click.option("--namespace", metavar="NAME", help="Namespace of safetake's own account.")
@click.option("--account", default="safetake", metavar="NAME", help="The ServiceAccount's name.")
@pass_settings
def rbac(settings: Settings, namespace: str | None, account: str) -> int:
    """Print the Kubernetes permissions that the services and drills need.

    A ServiceAccount and, for each namespace, a Role and its RoleBinding: nothing more than
    the configured services and the drills' pods need. YAML, for `kubectl apply -f -`.
    """
    from safetake.cli import output
    from safetake.services.rbac import manifests, to_yaml

    config = settings.load()
    documents = manifests(config.services, namespace, account, config.drill)
    if not documents:
        raise ServiceError(
            "no service runs on Kubernetes",
            hint='give one `kubernetes = "deployment/NAME"` in the configuration',
        )
    if settings.json:
        output.document(documents)
    else:
        output.write(to_yaml(documents))
    return 0


def _look(config: Config, name: str) -> dict[str, Any]:
    from safetake.services import build_all
    from safetake.services.health import ask

    section = config.services[name]
    service = build_all(config)[name]
    found: dict[str, Any] = {
        "name": name,
        "by": service.describe(),
        "uses": section.uses or list(config.sources),
        "can_stop": service.can_stop,
        "running": None,
        "state": {},
        "health": None,
        "answer": "",
        "problem": "",
    }
    try:
        found["state"] = service.state()
        found["running"] = found["state"]["running"]
    except SafetakeError as error:
        found["problem"] = str(error)
    if section.health is not None:
        saw = ask(name, section.health, config=config)
        found["health"], found["answer"] = saw.ok, saw.text
    return found
