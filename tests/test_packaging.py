"""What is installed elsewhere is what is tested here: data files, declared packages, pinned versions."""

from __future__ import annotations

import ast
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FILES = [path for top in ("vlsafe", "callbacks") for path in sorted((ROOT / top).rglob("*")) if path.is_file()]
SOURCES = [path for path in FILES if path.suffix == ".py"]
NOT_FOR_CPU = {"flash-attn", "bitsandbytes", "torchvision"}  # extras that this stack is not tested with


def declared() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [Requirement(line) for lines in (PROJECT["project"]["dependencies"], *extras) for line in lines]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_data_file_is_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    data = [path for path in FILES if path.suffix not in (".py", ".pyc")]
    assert data
    assert [str(path) for path in data if not any(fnmatch(path.name, pattern) for pattern in patterns)] == []


def test_every_declared_package_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        if name not in NOT_FOR_CPU:
            assert name in pinned, f"{name} has no line in constraints.txt"
            assert requirement.specifier.contains(pinned[name]), f"{requirement} does not allow {pinned[name]}"


def test_no_pin_has_a_local_suffix() -> None:
    assert [f"{name}=={version}" for name, version in pins().items() if "+" in version] == []


def imported(path: Path) -> set[str]:
    """Every module that the file imports, at its top or inside a function."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_every_imported_package_is_declared() -> None:
    ours = {canonicalize_name(requirement.name) for requirement in declared()}
    distributions = packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {root}"
        for path in SOURCES
        for root in {name.partition(".")[0] for name in imported(path)}
        - sys.stdlib_module_names
        - {"vlsafe", "callbacks"}
        if not ours & {canonicalize_name(name) for name in (*distributions.get(root, ()), root)}
    }
    assert undeclared == set()


ABOVE = {
    "vlsafe/data": ("vlsafe.objectives", "vlsafe.models", "vlsafe.evaluation", "vlsafe.run", "vlsafe.cli"),
    "vlsafe/objectives": ("vlsafe.models", "vlsafe.evaluation", "vlsafe.run", "vlsafe.cli"),
    "vlsafe/models": ("vlsafe.evaluation", "vlsafe.run", "vlsafe.cli"),
    "vlsafe/studies": ("vlsafe.models", "vlsafe.run", "vlsafe.cli"),
    "vlsafe/evaluation": ("vlsafe.models", "vlsafe.studies", "vlsafe.run", "vlsafe.cli"),
    "vlsafe": ("callbacks",),
}
"""Room -> what its files must not import."""


def test_imports_run_downward_only() -> None:
    upward = {
        f"{path.relative_to(ROOT)}: {module}"
        for room, barred in ABOVE.items()
        for path in SOURCES
        if path.is_relative_to(ROOT / room)
        for module in imported(path)
        if any(f"{module}.".startswith(f"{each}.") for each in barred)
    }
    assert upward == set()
