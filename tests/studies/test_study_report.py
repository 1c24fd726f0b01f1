"""The report of a study, from run directories written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.studies.folders import REFUSAL, evaluation
from vlsafe.__main__ import main
from vlsafe.errors import DataError
from vlsafe.studies.runs import groups, read_runs, settings
from vlsafe.studies.tradeoff import front, rank_correlation, recommended, spread

DIRECTIONS = {
    "guard/asr": {"side": "harm", "better": "lower"},
    "trick/over_refusal": {"side": "benign", "better": "lower"},
    "vqa/accuracy": {"side": "utility", "better": "higher"},
}


def run(folder: Path, share: float, seed: int, rates: tuple[float, float, float], judge: str = "keyword:a") -> Path:
    folder.mkdir(parents=True)
    asr, over_refusal, accuracy = rates
    sides = {name: {"value": v, "low": 0, "high": 100, "n": 50, "n_error": 0} for name, v in zip(DIRECTIONS, rates)}  # noqa: B905
    report: dict[str, Any] = {"judge": judge, "directions": DIRECTIONS, "metrics": {}}
    report["metrics"] = {name: {"after": side} for name, side in sides.items()}
    report["objective"] = {"value": (300 - asr - over_refusal - (100 - accuracy)) / 3}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "report.html").write_text("<p>")
    parts = {"safety": {"share": share}}
    config = {"seed_everything": seed, "run_dir": str(folder), "data": {"init_args": {"seed": seed, "parts": parts}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [f"{step},{-step * asr / 100},{asr * step / 4}" for step in (0, 2, 4)]
    (folder / "metrics.csv").write_text("step,margin/harm,probe/guard/asr\n" + "\n".join(lines) + "\n")
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for seed in (0, 1, 2):
        run(tmp_path / f"study/none-{seed}", 0.0, seed, (90 - seed, 2, 60))
        run(tmp_path / f"study/some-{seed}", 0.1, seed, (10 + seed, 5, 58))
        run(tmp_path / f"study/all-{seed}", 1.0, seed, (10 + seed, 80, 30))
    return tmp_path / "study"


def test_seeds_are_no_setting(study: Path) -> None:
    runs = read_runs([study])
    assert settings(runs) == ["data.init_args.parts.safety.share"]
    assert sorted(len(group) for group in groups(runs)) == [3, 3, 3]


def test_the_front_and_the_recommendation(study: Path) -> None:
    runs = read_runs([study])
    # no share is best in over-refusal and utility with seed 2, a share of 0.1 in attack success with seed 0
    assert {each.path.name for each in front(runs)} == {"none-2", "some-0"}
    best = recommended(groups(runs))
    assert best is not None and {each.path.name for each in best} == {"some-0", "some-1", "some-2"}


def test_the_page_holds_all_and_loads_nothing(study: Path, tmp_path: Path) -> None:
    run(study / "deeper" / "<b>odd</b>", 0.3, 0, (20, 5, 58))
    out = tmp_path / "out" / "study.html"
    assert main(["study", "report", str(study), "--out", str(out)]) == 0
    page = out.read_text()
    assert "10 runs of 4 settings" in page and "Recommended: safety.share = 0.1" in page
    assert 'href="../study/some-0/report.html"' in page
    assert "<b>odd" not in page and "&lt;b&gt;odd" in page
    assert not re.search(r"<script|(src|href)=\"(?!\.\./study)|url\(|@import", page)
    for title in ("Safety against its cost", "How much safety data", "On the way", "All settings at once", "Runs"):
        assert f"<h2>{title}</h2>" in page
    assert "rank correlation of -0.9" in page or "rank correlation of -1" in page
    assert page.count("<polyline") > 10 and "nan" not in page.lower().replace("nano", "")


def test_the_papers_cells_stand_beside_ours(study: Path, tmp_path: Path) -> None:
    for each in sorted(study.glob("some-*")):
        report = json.loads((each / "report.json").read_text())
        side = {"value": 1.0, "low": 0.5, "high": 2.0, "n": 442, "n_error": 0}
        report["metrics"] = {"vlguard[unsafe]/asr": {"after": side}} | report["metrics"]
        report["directions"] = {"vlguard[unsafe]/asr": {"side": "harm", "better": "lower"}} | report["directions"]
        (each / "report.json").write_text(json.dumps(report))
        content = yaml.safe_load((each / "config.yaml").read_text())
        content["evaluation"] = {"published": "llava-7b/mixed" if each.name == "some-0" else None}
        (each / "config.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "study.html"
    assert main(["study", "report", *map(str, sorted(study.glob("some-*"))), "--out", str(out)]) == 0
    text = re.sub(r"<[^>]+>", " ", out.read_text())
    section = text[text.index("Beside the paper") :]
    # Table 2, row "7B Mixed": 0.90 of 442 items, whose Wilson interval holds 1.0
    assert re.search(
        r"some-0\s+llava-7b/mixed\s+vlguard\[unsafe\]/asr\s+0\.9 \[0\.4, 2\.3\]\s+1(\.0)? \[0\.5, 2(\.0)?\]", section
    )
    assert section.count("llava-7b/mixed") == 1 and "overlap" in section
    assert "ICML 2024" in section


def test_what_cannot_be_compared_is_refused(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(study / "other", 0.1, 0, (1, 1, 1), judge="keyword:b")
    with pytest.raises(DataError, match="judged by keyword:b"):
        read_runs([study])
    assert main(["study", "report", str(tmp_path / "nothing"), "--out", str(tmp_path / "x.html")]) == 1
    assert "no finished run" in capsys.readouterr().err


def test_golden_statistics() -> None:
    found = spread([10, 12, 14])  # t(2) = 4.303, s = 2
    assert found.mean == 12 and found.high == pytest.approx(12 + 4.303 * 2 / 3**0.5)
    assert spread([5]).low is None
    assert rank_correlation([(1, 30), (2, 20), (3, 10)]) == pytest.approx(-1)
    # ranks 1.5 1.5 3 4 against 1 2 3.5 3.5: products 4, squares 4.5 and 4.5
    assert rank_correlation([(1, 1), (1, 2), (2, 3), (3, 3)]) == pytest.approx(8 / 9)
    assert rank_correlation([(1, 1), (1, 1), (1, 1)]) is None


def test_the_forgetting_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = evaluation(tmp_path / "a", {"h1": REFUSAL}), evaluation(tmp_path / "b", {})
    out = tmp_path / "flips.json"
    assert main(["study", "forgetting", str(before), str(after), "--out", str(out)]) == 0
    assert "toy[harm]/asr" in capsys.readouterr().out
    assert [flip["id"] for flip in json.loads(out.read_text())["flips"]] == ["h1"]
