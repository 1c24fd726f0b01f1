"""Every family as a checkpoint on disk, and the table of what was shown for each at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from every import FAMILIES, written
from making import Family
from tiny import draw

from vlsafe.conversation import ImageRef

CHECKS = {
    "loss": "test_the_loss_is_hugging_faces_own",
    "labels": "test_ids_and_labels_are_those_written_by_hand",
    "padding-free": "test_without_padding_samples_do_not_see_each_other",
    "batch = single": "test_a_batch_answers_as_its_prompts_alone",
    "trainable": "test_one_step_changes_exactly_what_the_table_names",
    "round trip": "test_what_is_exported_comes_back_bit_by_bit",
}
"""Columns of the table: each is one test of test_families.py, run for every family."""


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are faster on one thread; the tests after these get theirs back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    """By its name where a test asks for single ones."""
    named = {each.name: each for each in FAMILIES}
    found: Family = named[request.param] if isinstance(request.param, str) else request.param
    return found


@pytest.fixture(scope="session")
def checkpoint(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(family, tmp_path_factory.mktemp(family.name))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageRef]:
    folder = tmp_path_factory.mktemp("shown")
    return {
        "red": draw(folder, "red.png", "red"),
        "wide": draw(folder, "wide.png", "blue", (32, 16)),
        "tall": draw(folder, "tall.png", "green", (16, 48)),
    }


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Family x check: ``ok``, ``FAILED``, or ``not run``."""
    cells: dict[tuple[str, str], str] = {}
    for outcome, word in (("passed", "ok"), ("skipped", "skipped"), ("failed", "FAILED"), ("error", "FAILED")):
        for report in terminalreporter.stats.get(outcome, []):
            for check, test in CHECKS.items():
                for family in FAMILIES:
                    ours = f"::{test}[" in report.nodeid and family.name in report.nodeid.split("[")[1][:-1].split("-")
                    if ours and cells.get((family.name, check)) != "FAILED":
                        cells[family.name, check] = word
    if not cells:
        return
    terminalreporter.section("families")
    terminalreporter.write_line("".join(f"{word:<18}" for word in ("family", *CHECKS)))
    for family in FAMILIES:
        row = [cells.get((family.name, check), "not run") for check in CHECKS]
        terminalreporter.write_line("".join(f"{word:<18}" for word in (family.name, *row)))
