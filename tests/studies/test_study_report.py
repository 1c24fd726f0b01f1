"""The report of a study, from run directories written by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.studies.folders import REFUSAL, evaluation
from vlsafe.__main__ import main
from vlsafe.errors import DataError
from vlsafe.studies.runs import Run, groups, read_runs, settings
from vlsafe.studies.shares import over_share
from vlsafe.studies.tradeoff import checkpoints, front, rank_correlation, recommended, spread

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


def laid(run: Path, seed: int, **config: Any) -> None:
    """Give a run another config."""
    (run / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed, **config}))


def parts(safety: float, proportions: tuple[float, float], **more: Any) -> dict[str, Any]:
    """A mixture of which ``safety`` is safety data; the rest in these proportions."""
    rest = dict(zip(("words", "pictures"), proportions, strict=True))
    shares = {"safety": safety} | {name: (1 - safety) * each for name, each in rest.items() if safety < 1}
    return {"data": {"init_args": more | {"parts": {name: {"share": each} for name, each in shares.items()}}}}


def test_a_curve_over_the_share_is_of_runs_that_differ_in_nothing_else(tmp_path: Path) -> None:
    rates = (50.0, 5.0, 50.0)
    for share in (0.0, 0.1, 1.0):
        for seed in (0, 1):
            laid(run(tmp_path / f"grid-{share}-{seed}", share, seed, rates), seed, **parts(share, (0.4, 0.6)))
    laid(run(tmp_path / "again", 0.1, 1, rates), 1, **parts(0.1, (0.4, 0.6)))
    laid(run(tmp_path / "otherwise", 0.1, 0, rates), 0, **parts(0.1, (0.5, 0.5)))
    laid(run(tmp_path / "longer", 0.1, 0, rates), 0, **parts(0.1, (0.4, 0.6), samples=9))
    laid(run(tmp_path / "none", 0.0, 0, rates), 0, **parts(0.0, (0.4, 0.6), samples=9))
    curve = over_share(read_runs([tmp_path]), "data.init_args.parts.safety.share")
    assert {share: len(runs) for share, runs in curve.items()} == {0.0: 2, 0.1: 2, 1.0: 2}
    assert {each.path.name.split("-")[0] for runs in curve.values() for each in runs} <= {"grid", "again"}


def test_what_follows_from_another_key_is_no_setting(tmp_path: Path) -> None:
    """A part that some runs lack shows by its share, and a model's arguments by its class."""
    rates = (50.0, 5.0, 50.0)
    source = {"share": 0.5, "source": {"kind": "vlguard", "path": "x"}}
    backbone = {"class_path": "vlsafe.ComposedVLLM", "init_args": {"vision_encoder": "clip"}}
    laid(run(tmp_path / "one", 0, 0, rates), 0, data={"parts": {"safety": source}}, model=backbone)
    other = {"class_path": "vlsafe.PretrainedVLLM", "init_args": {"checkpoint": str(tmp_path / "one" / "model")}}
    laid(run(tmp_path / "two", 0, 0, rates), 0, data={"parts": {}}, model=other)
    assert settings(read_runs([tmp_path])) == ["data.parts.safety.share", "model.class_path"]


def test_nothing_is_recommended_where_every_objective_is_zero(tmp_path: Path) -> None:
    for share in (0.0, 0.1):
        folder = run(tmp_path / f"study/{share}", share, 0, (100, 0, 50))
        report = json.loads((folder / "report.json").read_text()) | {"objective": {"value": 0.0}}
        (folder / "report.json").write_text(json.dumps(report))
    assert main(["study", "report", str(tmp_path / "study"), "--out", str(tmp_path / "study.html")]) == 0
    page = (tmp_path / "study.html").read_text()
    assert "every objective is 0" in page and "Recommended" not in page


def test_a_run_that_starts_from_another_is_told_by_its_name_in_the_order_of_time(tmp_path: Path) -> None:
    rates = (50.0, 5.0, 50.0)
    for name, start in (("b", "outside/model"), ("a", str(tmp_path / "b" / "model"))):
        backbone = {"init_args": {"checkpoint": start}}
        folder = run(tmp_path / name, 0, 0, rates)
        laid(folder, 0, model={"init_args": {"backbone": backbone}})
        report = json.loads((folder / "report.json").read_text())
        report["created"] = f"2026-01-0{'ba'.index(name) + 1}T00:00:00+00:00"
        (folder / "report.json").write_text(json.dumps(report))
    assert main(["study", "report", str(tmp_path), "--out", str(tmp_path / "study.html")]) == 0
    rows = re.findall(r"<tr .*?</tr>", (tmp_path / "study.html").read_text().split("<h2>Runs</h2>")[1])
    assert ">b</a>" in rows[-2] and "outside/model" in rows[-2]
    assert ">a</a>" in rows[-1] and ">b</div></td>" in rows[-1]


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
    assert rank_correlation([(1, 30), (2, 20), (3, 10)]) == pytest.approx(-1, abs=1e-5)
    # ranks 1.5 1.5 3 4 against 1 2 3.5 3.5: products 4, squares 4.5 and 4.5
    assert rank_correlation([(1, 1), (1, 2), (2, 3), (3, 3)]) == pytest.approx(8 / 9, abs=1e-5)
    assert rank_correlation([(1, 1), (1, 1), (1, 1)]) is None


def test_checkpoints_are_ends_of_runs_and_steps_that_both_probes_saw() -> None:
    curves = {"margin/harm": [(0, 1.0), (2, 2.0), (3, 5.0)], "probe/toy/asr": [(2, 50.0), (3, 60.0)]}
    one = Run(Path(), "one", {}, {"curves": {"step": [0, 1, 2]}}, 40.0, 0.0, None, curves)
    longer = replace(one, report={"curves": {"step": [0, 1, 2, 3]}})  # the margin was not read at its end
    assert checkpoints([one, longer]) == [(5.0, 40.0), (2.0, 50.0), (2.0, 50.0), (5.0, 60.0)]


def test_the_forgetting_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = evaluation(tmp_path / "a", {"h1": REFUSAL}), evaluation(tmp_path / "b", {})
    out = tmp_path / "flips.json"
    assert main(["study", "forgetting", str(before), str(after), "--out", str(out)]) == 0
    assert "toy[harm]/asr" in capsys.readouterr().out
    assert [flip["id"] for flip in json.loads(out.read_text())["flips"]] == ["h1"]
