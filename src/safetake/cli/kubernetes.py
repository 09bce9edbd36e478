"""`safetake kubernetes`: the configuration as objects of Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import Command, Settings, pass_settings
from safetake.errors import SafetakeError, UsageError

if TYPE_CHECKING:
    from safetake.operate.kubernetes import Mode

MODES = ("cronjobs", "daemon", "job")
HEADER = "# Rendered by `safetake kubernetes`; it is overwritten.\n"


@click.command(cls=Command)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="cronjobs",
    show_default=True,
    help="A CronJob for each scheduled job; one daemon for all; or a Job that runs COMMAND once.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="One file for each object, and a kustomization.yaml, instead of stdout.",
)
@click.option("--values", is_flag=True, help="Values of the Helm chart instead of objects.")
@click.option("--image", metavar="IMAGE", help="Instead of the configured one.")
@click.option("--allow-unpinned-image", is_flag=True, help="Accept an image without a digest.")
@click.option(
    "--no-affinity", is_flag=True, help="The pods that use the volumes are gone: wait for none."
)
@click.argument("words", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@pass_settings
def command(
    settings: Settings,
    mode: Mode,
    output: Path | None,
    values: bool,
    image: str | None,
    allow_unpinned_image: bool,
    no_affinity: bool,
    words: tuple[str, ...],
) -> int:
    """Render the configuration as objects of Kubernetes.

    YAML for `kubectl apply -f -`; with --json one List. No cluster is asked, and no secret is read:
    the objects name the Secrets that hold them. With `--mode job -- COMMAND` one Job that runs
    `safetake COMMAND`, for `kubectl create -f -`.
    """
    from safetake.cli import output as out
    from safetake.operate.kubernetes import chart_values, make_plan, objects
    from safetake.yamltext import one, to_yaml

    if (mode == "job") != bool(words):
        raise UsageError(
            "--mode job and a command go together",
            hint="for example: safetake kubernetes --mode job -- restore latest --to /data/back",
        )
    if values and (mode == "job" or output is not None):
        raise UsageError(
            "--values goes with neither --mode job nor --output",
            hint="safetake kubernetes --values > values.yaml",
        )
    path = settings.find()
    plan = make_plan(
        _read(path),
        path,
        mode,
        image=image,
        unpinned=allow_unpinned_image,
        affinity=not no_affinity,
        arguments=list(words),
    )
    if not settings.quiet:
        for warning in plan.warnings:
            out.note(f"{out.style('warning:', '33')} {out.printable_lines(warning)}")
    if values:
        document = chart_values(plan, unpinned=allow_unpinned_image)
        if settings.json:
            out.document(document)
        else:
            out.write(HEADER + one(document))
        return 0
    documents = objects(plan)
    if output is not None:
        files = _write_all(output, documents)
        if settings.json:
            out.document({"files": files})
        elif not settings.quiet:
            for name in files:
                out.line(str(output / name))
    elif settings.json:
        out.document({"apiVersion": "v1", "kind": "List", "items": documents})
    else:
        out.write(to_yaml(documents))
    return 0


def _read(path: Path) -> str:
    from safetake.errors import ConfigError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start})") from error


def _write_all(folder: Path, documents: list[dict[str, Any]]) -> list[str]:
    """The names of the files; `kubectl apply -k` reads those of now, whatever else lies there."""
    from safetake.cli import output as out
    from safetake.yamltext import one

    files = {_file_name(document): HEADER + one(document) for document in documents}
    resources = {"resources": sorted(files)}
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    files["kustomization.yaml"] = HEADER + one({**kustomization, **resources})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            target = folder / name
            if target.exists() and not target.read_text(encoding="utf-8").startswith(HEADER):
                raise SafetakeError(
                    f"{target} was not written by safetake",
                    hint="name an empty folder, or move that file away",
                )
        for name, text in files.items():
            beside = folder / f".{name}.new"
            beside.write_text(text, encoding="utf-8")
            beside.replace(folder / name)
        old = [
            each.name
            for each in sorted(folder.glob("*.yaml"))
            if each.name not in files and each.read_text(encoding="utf-8").startswith(HEADER)
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise SafetakeError(f"cannot write {folder}: {error}") from error
    for name in old:
        out.note(f"{folder / name}: not rendered any more; remove it, and its object")
    return sorted(files)


def _file_name(document: dict[str, Any]) -> str:
    described = document["metadata"]
    name = described.get("name") or described["generateName"].rstrip("-")
    kind = document["kind"].lower()
    namespace = described["namespace"]
    if kind in ("role", "rolebinding"):  # one of a name in each namespace
        return f"{kind}-{namespace}-{name}.yaml"
    return f"{kind}-{name}.yaml"
