"""What the README's commands leave in a clone breaks none of the others, wherever the clone lies."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("vlsafe", "callbacks", "tests")


def imported(path: Path) -> set[str]:
    """The first parts of all module names that the file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names = [*plain, *(node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module)]
    return {name.partition(".")[0] for name in names}


def test_no_folder_in_the_clone_changes_how_imports_are_sorted(tmp_path: Path) -> None:
    """Runs, W&B's offline runs and fetched data make folders whose names may be those of modules: here, of every module
    that is imported anywhere."""
    clone = tmp_path / "a clone"
    clone.mkdir()
    shutil.copy(ROOT / "pyproject.toml", clone)
    for folder in CODE:
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    modules = {name for folder in CODE for path in (clone / folder).rglob("*.py") for name in imported(path)}
    for name in modules - set(CODE) - sys.stdlib_module_names | {"runs"}:
        (clone / name).mkdir()
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "I", "."]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_make_runs_tools_without_their_scripts() -> None:
    """The first line of a script names its Python, and cannot hold the spaces of a path."""
    for target in ("quickstart", "test"):
        done = subprocess.run(["make", "-n", "-B", target], cwd=ROOT, capture_output=True, text=True, check=True)
        tools = {line.split()[0] for line in done.stdout.splitlines() if line.startswith(".venv/bin/")}
        assert tools == {".venv/bin/python"}


def test_the_short_quickstart_is_the_quickstart_with_an_overlay() -> None:
    def fit(*variables: str) -> str:
        done = subprocess.run(
            ["make", "-n", "quickstart", *variables], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return next(line.strip() for line in done.stdout.splitlines() if "vlsafe fit" in line)

    own = fit()
    assert own == ".venv/bin/python -m vlsafe fit --config experiments/quickstart.yaml"
    assert fit("OVERLAY=.ci/quickstart_short.yaml") == f"{own} --config .ci/quickstart_short.yaml"
