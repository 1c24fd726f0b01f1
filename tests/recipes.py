"""Every run that is shipped, as `vlsafe rehearse` takes them: `python -m tests.recipes` prints them, one a line.

A recipe under experiments/ is run as the first `fit` command of its header says; stages of the story are one pipeline;
a sweep file stands for its first trial.
"""

from __future__ import annotations

import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("experiments/**/*.yaml"))
SHARED = sorted(ROOT.glob("experiments/**/shared/*.yaml"))
"""Laid under or over others, never run on their own; parsed with those that name them."""
STAGES = sorted(ROOT.glob("experiments/story/*.yaml"))
SWEEPS = sorted(ROOT.glob("sweeps/*.yaml"))
BASE = ROOT / "experiments" / "llava15_7b.yaml"
RUNS = [path for path in FILES if path not in (*SHARED, *STAGES)]


def header(path: Path) -> list[str]:
    return [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]


def configs(path: Path) -> list[str]:
    """The configs of a recipe, from the top of the checkout, itself last."""
    command = next(line for line in header(path) if line.startswith("python -m vlsafe fit"))
    words = shlex.split(command)[4:]
    assert words[::2] == ["--config"] * (len(words) // 2), f"{path.name}: {command}"
    return words[1::2]


def rehearsals() -> list[str]:
    """What `rehearse` takes: everything but the base, which is no run of its own."""
    recipes = [",".join(configs(path)) for path in RUNS if path != BASE]
    return [*recipes, *(str(path.relative_to(ROOT)) for path in (*SWEEPS, *STAGES))]


if __name__ == "__main__":
    print("\n".join(rehearsals()))
