"""Who may import whom: DESIGN section 7, checked on the syntax trees of every module, lazy imports included."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAIR = (
    {"cli", "__main__"},
    {"nas", "export", "report"},
    {"check", "hybridize"},
    {"compiler", "artifact", "runtime", "nn"},
    {"passes", "importer", "search"},
    {"ops", "board", "data", "hw", "targets"},
    {"core"},
    {"files"},
    {"errors", "registry"},
)
"""From the top down: a part imports parts of its own step or of the steps below it."""
HEIGHT = {part: len(STAIR) - i for i, step in enumerate(STAIR) for part in step}
TORCH = {"nn", "nas", "export"}
IR_BORDER = {"passes", "importer", "compiler", "artifact", "runtime", "hybridize"}
IMPORT_NAMES = {"pillow": "PIL", "protobuf": "google"}
"""Distributions whose import name is not their own with `_` for `-`."""


def _modules() -> Iterator[tuple[str, Path]]:
    for folder, package in (("nashc", "nashc"), ("ops", "nashc.ops"), ("targets", "nashc.targets")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


MODULES = dict(_modules())


@cache
def imports(module: str) -> tuple[str, ...]:
    """Every module that `module` imports, by its absolute name; `from nashc import x` counts as nashc.x."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            name = ".".join((*base, *filter(None, [node.module])))
            found += [f"{name}.{alias.name}" for alias in node.names] if name == "nashc" else [name]
    return tuple(found)


def part_of(module: str) -> str:
    """The part of nashc that a module belongs to: nashc.search.coarse -> search; "" for nashc itself."""
    return module.partition(".")[2].partition(".")[0]


def imported_parts(module: str) -> set[str]:
    inside = {part_of(name) for name in imports(module) if name.partition(".")[0] == "nashc"}
    return {part for part in inside if part in HEIGHT or f"nashc.{part}" in MODULES} - {""}


def third_party(module: str) -> set[str]:
    tops = {name.partition(".")[0] for name in imports(module)}
    return tops - set(sys.stdlib_module_names) - {"nashc"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    part = part_of(module)
    if part == "":
        assert not imported_parts(module), f"{module} must stay empty: every import of nashc would pay for it"
        return
    unplaced = ({part} | imported_parts(module)) - set(HEIGHT)
    assert not unplaced, f"{module}: give {', '.join(sorted(unplaced))} a step on STAIR"
    up = {other for other in imported_parts(module) if HEIGHT[other] > HEIGHT[part]}
    assert not up, f"{module} imports {', '.join(sorted(up))}, which stand above {part}"


def test_no_circle_among_the_parts():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        graph.setdefault(part_of(module), set()).update(imported_parts(module) - {part_of(module)})
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_third_party_imports_stay_where_they_belong(module):
    part, found = part_of(module), third_party(module)
    assert "torch" not in found or part in TORCH, f"{module} imports torch: only {', '.join(sorted(TORCH))} may"
    assert "onnx_ir" not in found or part in IR_BORDER, f"{module} imports onnx_ir and is on the frozen side"
    assert part != "core" or found <= {"numpy"}, f"{module}: core uses numpy and the standard library only"


def test_every_third_party_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + extras["search"] + extras["plot"]
    names = [line.partition(">")[0].partition("=")[0].strip() for line in lines]
    declared = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}
    undeclared = {f"{m} imports {t}" for m in MODULES for t in third_party(m) - declared}
    assert not undeclared, sorted(undeclared)
