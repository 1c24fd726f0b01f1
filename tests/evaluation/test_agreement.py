"""Agreement beyond chance: the formula, its interval, and where it is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import REFUSAL, FakeResponder, Toy
from reports import report

from vlsafe.answering import Decoding
from vlsafe.errors import DataError
from vlsafe.evaluation.agreement import HUMAN, agreements, folder_agreements, human_labels, kappa
from vlsafe.evaluation.commands import judge_main, score_main
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Metric
from vlsafe.evaluation.report import write_report
from vlsafe.evaluation.scoring import bounds
from vlsafe.evaluation.stages import evaluate

XSTEST = {"1_full_compliance": "comply", "2_full_refusal": "refuse", "3_partial_refusal": "partial"}


def labels(*values: str) -> dict[str, str]:
    return {str(number): value for number, value in enumerate(values)}


def test_kappa_by_hand() -> None:
    # 20 both yes, 15 both no, 5 and 10 apart: 0.70 observed, 0.50 by chance.
    assert kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert kappa(np.array([[5, 0], [0, 5]])) == pytest.approx(1)
    assert np.isnan(kappa(np.array([[7.0]])))


def test_labels_and_sides_apart_and_errors_left_out() -> None:
    one = labels("refuse", "comply", "safe_comment", "comply", "error", "partial")
    other = labels("refuse", "comply", "refuse", "refuse", "comply", "refuse")
    whole, sides = agreements("a", one, "b", other)
    assert (whole.n, whole.n_error, whole.agreed) == (5, 1, 40)
    assert (sides.over, sides.agreed) == ("refused or not", 80)
    assert sides.kappa == pytest.approx((0.8 - 0.56) / 0.44)
    assert agreements("a", one, "b", other) == [whole, sides]
    with pytest.raises(DataError, match="a and b have no item in common"):
        agreements("a", {"x": "comply"}, "b", other)
    (constant, _) = agreements("a", labels("comply", "comply"), "b", labels("comply", "comply"))
    assert (constant.agreed, constant.kappa, constant.low) == (100, None, None)


def test_the_interval_covers_and_shrinks() -> None:
    few = agreements(
        "a", labels(*["refuse", "comply"] * 20), "b", labels(*["refuse", "comply", "comply", "comply"] * 10)
    )
    many = agreements("a", labels(*["refuse", "comply"] * 2000), "b", labels(*["refuse", *["comply"] * 3] * 1000))
    for each in (few[0], many[0]):
        assert each.kappa == pytest.approx(0.5)
        assert each.low is not None and each.high is not None and each.low < 0.5 < each.high
    # The large-sample standard error of this table is sqrt(0.75 * 0.25 / n) / 0.5 = 0.0137 for n = 4,000.
    assert many[0].high - many[0].low == pytest.approx(2 * 1.96 * 0.0137, rel=0.15)  # type: ignore[operator]


def test_our_judge_against_people(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (shared_data / "xstest_refusal_labels" / "labelled.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    # Two versions of the model answered the same prompts: an answer's number tells them apart.
    answers = [{"id": n, "question": row["prompt"], "text": row["completion"]} for n, row in enumerate(rows)]
    people = [{"id": n, "label": XSTEST[row["final_label"]]} for n, row in enumerate(rows)]
    for name, content in (("answers", answers), ("people", people)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    kappas = {}
    for name in ("vlsafe", "vlguard"):
        out = ["--judge", f"keyword:{name}", "--out", str(tmp_path / "out"), "--against", str(tmp_path / "people")]
        assert judge_main([str(tmp_path / "answers"), *out]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith(f"keyword:{name} and people, refused or not: ") and line.endswith("n = 371")
        kappas[name] = float(line.partition("kappa ")[2].split()[0])
    assert kappas["vlsafe"] > 0.75 > kappas["vlguard"]


def test_human_labels_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / HUMAN
    rows = ['{"id": 1, "label": "comply"}', '{"id": "1", "label": "refuse"}', '{"id": 2, "label": "safe"}', "[]", "{"]
    file.write_text("\n".join(rows))
    with pytest.raises(DataError) as caught:
        human_labels(file)
    words = str(caught.value)
    assert "line 2: id '1' has another label before" in words and "line 3: needs an id and a label" in words
    assert "line 4: not an object" in words and "line 5: not JSON" in words
    with pytest.raises(DataError, match="no such file"):
        human_labels(tmp_path / "none")


def test_a_folder_with_two_judges_and_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    responder = FakeResponder({f"toy/harm/{n}": REFUSAL for n in range(2)} | {"toy/harm/3": "Hello! Here you go."})
    evaluate([Toy(tmp_path / "p")], responder, judge_named("keyword:vlsafe"), Decoding(), folder)
    judge_main(
        [str(folder / "responses.jsonl"), "--judge", "keyword:gcg", "--out", str(folder / "verdicts.keyword:gcg.jsonl")]
    )
    human = {f"toy/harm/{n}": "refuse" if n < 2 else "comply" for n in range(4)}
    (folder / HUMAN).write_text("".join(json.dumps({"id": key, "label": value}) + "\n" for key, value in human.items()))
    found = folder_agreements(folder)
    assert [(row["first"], row["second"], row["n"]) for row in found[::2]] == [
        ("keyword:gcg", "keyword:vlsafe", 10),
        ("keyword:gcg", "people", 4),
        ("keyword:vlsafe", "people", 4),
    ]
    assert [row["agreed"] for row in found[::2]] == [90, 75, 100]
    capsys.readouterr()
    score_main([str(folder), "--judge", "keyword:vlsafe"])
    assert "keyword:vlsafe and people, labels: 100.0 % agree, kappa 1.000" in capsys.readouterr().out
    page = write_report({**report(), "agreement": found}, tmp_path).read_text(encoding="utf-8")
    assert "Agreement between judges" in page and "<code>people</code>" in page


def test_a_judge_s_name_may_hold_a_slash(tmp_path: Path) -> None:
    judge = judge_named("keyword:vlsafe")
    judge.name = "guard:wildguard:allenai/wildguard"
    evaluate([Toy(tmp_path / "p")], FakeResponder({}), judge, Decoding(), tmp_path / "out")
    assert (tmp_path / "out" / "verdicts.guard:wildguard:allenai%2Fwildguard.jsonl").exists()
    assert score_main([str(tmp_path / "out"), "--judge", judge.name]) == 0


def test_bounds_take_every_error_for_harmful_and_for_safe(tmp_path: Path) -> None:
    assert bounds(Metric(25.0, 0, 100, 8, 2)) == (20, 40)
    assert bounds(Metric(float("nan"), 0, 100, 0, 3)) == (0, 100)
    assert bounds(Metric(50.0, 0, 100, 8)) == (50, 50)
    evaluate([Toy(tmp_path / "p")], FakeResponder({}), judge_named("keyword:vlsafe"), Decoding(), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["bounds"]["toy[harm]/asr"] == [100, 100]
