"""Item counts on the published files, and what the table of the docs says of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.benchmarks.advbench import AdvBench
from vlsafe.evaluation.benchmarks.figstep import FigStep
from vlsafe.evaluation.benchmarks.harmbench import HarmBench, HarmBenchMultimodal
from vlsafe.evaluation.benchmarks.pope import POPE
from vlsafe.evaluation.benchmarks.sets import SETS
from vlsafe.evaluation.benchmarks.vlguard import VLGuard
from vlsafe.evaluation.benchmarks.xstest import XSTest
from vlsafe.evaluation.suites import opened, suite_named

pytestmark = pytest.mark.usefixtures("cache")  # what is drawn or unpacked


def test_the_published_files_hold_what_the_table_of_the_docs_says(shared_data: Path, tmp_path: Path) -> None:
    without_pictures(shared_data, tmp_path)
    data = {name: shared_data / name for name in ("advbench", "xstest", "figstep", "harmbench", "pope")}
    every = ["none", "answer_with", "start_with"]
    benchmarks = [
        VLGuard(tmp_path),
        XSTest(data["xstest"] / "xstest_prompts.csv"),
        AdvBench(data["advbench"] / "harmful_behaviors.csv", suffixes=every, images=["none", "blank"]),
        FigStep(data["figstep"] / "safebench.csv", pictures=tmp_path),
        FigStep(data["figstep"] / "safebench.csv", pictures=tmp_path, tiny=True),
        HarmBench(data["harmbench"] / "harmbench_behaviors_text_all.csv"),
        HarmBenchMultimodal(data["harmbench"] / "harmbench_behaviors_multimodal_all.csv", pictures=tmp_path),
        POPE(data["pope"], pictures=tmp_path),
        POPE(data["pope"], pictures=tmp_path, random="2910"),
    ]
    counts = Counter(item.scope for benchmark in benchmarks for item in benchmark.items())
    counts["pope[popular]"] //= 2
    counts["pope[adversarial]"] //= 2
    advbench = {
        f"advbench[{suffix}image={image}]": 520
        for suffix in ("", "suffix=answer_with,", "suffix=start_with,")
        for image in ("none", "blank")
    }
    assert counts == advbench | {
        "vlguard[unsafe]": 442,
        "vlguard[safe_unsafe]": 558,
        "vlguard[safe_safe]": 558,
        "xstest[safe]": 250,
        "xstest[unsafe]": 200,
        "figstep": 500,
        "figstep[tiny]": 50,
        "harmbench[standard,image=none]": 200,
        "harmbench[contextual,image=none]": 100,
        "harmbench_multimodal": 110,
        "pope[random]": 3000,
        "pope[popular]": 3000,
        "pope[adversarial]": 3000,
        "pope[random2910]": 2910,
    }
    rows = documented()
    for scope, count in counts.items():
        assert f"{count:,}" in re.findall(r"[\d,]*\d", rows[scope.partition("[")[0]]), scope


def test_the_paper_s_suite_asks_as_many_items_as_the_docs_say(shared_data: Path, tmp_path: Path) -> None:
    without_pictures(shared_data, tmp_path / "vlguard")
    (tmp_path / "figstep" / "images").mkdir(parents=True)
    (tmp_path / "figstep" / "safebench.csv").symlink_to(shared_data / "figstep" / "safebench.csv")
    for name, target in (("advbench", "advbench"), ("xstest", "xstest"), ("vlguard-rivals", "vlguard")):
        (tmp_path / name).symlink_to(shared_data / target)
    benchmarks, skipped = opened(suite_named("paper"), tmp_path, None, skip_missing=True)
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for each in benchmarks:
        (row,) = re.findall(rf"^\| {each.name} \|.*\| ([\d,]+) \|$", page, re.MULTILINE)
        assert f"{len(each.items()):,}" == row, each.name
    assert [each.name for each in benchmarks] == ["vlguard", "advbench", "xstest", "figstep"]
    assert len(skipped) == 5


def without_pictures(shared_data: Path, folder: Path) -> None:
    """VLGuard's published test records, with empty files in the place of the pictures."""
    folder.mkdir(exist_ok=True)
    (folder / "test.json").symlink_to(shared_data / "vlguard" / "test.json")
    for record in json.loads((folder / "test.json").read_text(encoding="utf-8")):
        picture = folder / "test" / record["image"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()


def documented() -> dict[str, str]:
    """Benchmark -> its row of the table in the docs, names and markup cut off."""
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    return {cells[1].strip(" `"): cells[2] for cells in rows}


def test_the_docs_list_every_benchmark_and_each_declared_count() -> None:
    rows = documented()
    assert sorted(rows) == BENCHMARKS.names()
    assert [name for name, row in SETS.items() if f"{row['count']:,}" not in rows[name]] == []


def test_half_of_pope_is_yes_and_its_pictures_repeat(shared_data: Path, tmp_path: Path) -> None:
    items = [item for item in POPE(shared_data / "pope", pictures=tmp_path).items() if item.variant == "random"]
    assert Counter(item.reference for item in items) == {"yes": 1500, "no": 1500}
    assert len({item.cluster for item in items}) == 500
    assert items[0].question.endswith("in the image?\nAnswer the question using a single word or phrase.")
