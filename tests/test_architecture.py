"""The rooms of docs/architecture.md: imports point downwards only, and every door has a sign."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "safetake"
LAYERS = (
    {"__main__"},
    {"cli"},
    {"demo"},
    {"runbook"},
    {"operate"},
    {"drill"},
    {"kit"},
    {"recovery", "integrity"},
    {"backup", "proof"},
    {"restore"},
    {"ahead", "barrier", "differences", "evidence"},
    {"connect", "snapshots"},
    {"sources", "repository", "services"},
    {"openers", "sandbox", "scratch", "state"},
    {"swap"},
    {"storage"},
    {"columns", "configfile", "lines", "password"},
    {"config", "configplace"},
    {"configdrill"},
    {"configjobs", "configkube", "configscenario", "configservices"},
    {"configbase"},
    {"findings"},
    {
        "clock",
        "counts",
        "errors",
        "hostname",
        "ids",
        "join",
        "model",
        "tomltext",
        "wording",
        "yamltext",
    },
)
"""From the top; a room imports itself and what is below it, so rooms of one line never meet."""
EVERYWHERE = {"__version__"}
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / module).read_text(encoding="utf-8"))


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    """Dotted names below `safetake` that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they point"
        base = node.module or ""
        names = [f"{base}.{a.name}" for a in node.names] if base == "safetake" else [base]
    else:
        return []
    return [name.removeprefix("safetake.") for name in names if name.startswith("safetake.")]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_imports_point_downwards(module: str) -> None:
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    here = room(Path(module).parts)
    assert here in rank, f"{here} has no place in LAYERS"
    for node in ast.walk(tree(module)):
        for name in imported(node):
            there = room(tuple(name.split(".")))
            if there in EVERYWHERE or there == here:
                continue
            assert rank[there] > rank[here], f"{module} imports {name}, which is not below it"


def test_no_store_knows_another_but_chroma_its_database() -> None:
    for path in SOURCE.glob("sources/*/*.py"):
        here = path.parent.name
        for node in ast.walk(tree(path.relative_to(SOURCE).as_posix())):
            for name in imported(node):
                parts = name.split(".")
                if parts[0] == "sources" and len(parts) > 1 and parts[1] != here:
                    assert (here, parts[1]) == ("chroma", "sqlite"), f"{path} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_their_public_names_say_what_they_promise(module: str) -> None:
    parsed = tree(module)
    assert ast.get_docstring(parsed), f"{module} has no docstring"
    for node in parsed.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}: {node.name} has no docstring"


def test_architecture_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for layer in LAYERS:
        for name in layer - {"__main__"}:
            assert f"`{name}" in page, f"docs/architecture.md does not mention {name}"
