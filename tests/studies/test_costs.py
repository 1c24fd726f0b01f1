"""What a run costs stands in its header: GPUs, memory and hours, as `vlsafe plan` reckons them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = sorted([*EXPERIMENTS.glob("paper/*.yaml"), *EXPERIMENTS.glob("llava15_7b_*.yaml")])
COST = re.compile(
    r"\b(?P<gpus>one|two|four|eight|\d+) GPUs? [^;.]*?(?P<memory>[\d,]+) GiB[^;.]*? (?P<hours>[\d.]+) hours"
)


def costs(text: str) -> list[tuple[str, float, float]]:
    """GPUs, GiB and hours of each cost that a header states."""
    words = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    found = COST.finditer(words.partition("Cost")[2])
    return [(each["gpus"], float(each["memory"].replace(",", "")), float(each["hours"])) for each in found]


def test_there_are_such_files() -> None:
    assert len(FILES) >= 25


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_header_states_gpus_memory_and_hours(path: Path) -> None:
    stated = costs(path.read_text(encoding="utf-8"))
    assert stated, f"{path.name}: no cost of the form `N GPUs ... M GiB ... H hours`"
    assert all(memory > 1 and hours > 0 for _, memory, hours in stated)


def test_a_header_that_leaves_one_out_is_noticed() -> None:
    whole = "# Cost, by plan: one GPU needs 82 GiB\n# and 0.31 hours."
    assert costs(whole) == [("one", 82, 0.31)]
    for part in ("one GPU ", "82 GiB", "0.31 hours"):
        assert costs(whole.replace(part, "")) == []
