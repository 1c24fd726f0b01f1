"""Sides that were not measured alike, and numbers that are not the authors', say so beside the numbers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import REFUSAL, FakeResponder, Toy
from rich.console import Console

from vlsafe.answering import Decoding
from vlsafe.comparison.page import page
from vlsafe.comparison.runs import read_evaluated
from vlsafe.comparison.table import comparison
from vlsafe.comparison.text import csv_table, markdown
from vlsafe.evaluate_report import report
from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.commands import score_main
from vlsafe.evaluation.conditions import told_unlike, unlike_conditions
from vlsafe.evaluation.folder import read_folder
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.report import terminal_table
from vlsafe.evaluation.scoring import directions
from vlsafe.evaluation.stages import evaluate

MODEL = {
    "weights": "w",
    "template": "a" * 64,
    "image_processor": "b" * 64,
    "image_fit": "pad",
    "system_prompt": None,
    "dtype": "float32",
}


class Placed(FakeResponder):
    def __init__(self, **changed: Any) -> None:
        super().__init__({"toy/harm/0": REFUSAL})
        self.changed = changed

    def identity(self) -> dict[str, Any]:
        return MODEL | self.changed


def measured(out: Path, max_new_tokens: int = 256, **changed: Any) -> Path:
    toy, judge = Toy(out.parent / "pictures"), judge_named("keyword:vlsafe")
    evaluate([toy], Placed(**changed), judge, Decoding(max_new_tokens), out)
    return out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (dict(dtype="bfloat16"), "dtype (float32, bfloat16)"),
        (dict(template="c" * 64), "template (aaaaaaaaaaaa, cccccccccccc)"),
        (dict(image_fit="crop"), "image fit (pad, crop)"),
        (dict(system_prompt="Be safe."), "system prompt (none, Be safe.)"),
        (dict(weights="v"), ""),
    ],
)
def test_each_condition_that_differs_is_named(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    first, second = measured(tmp_path / "a"), measured(tmp_path / "b", **changed)
    unlike = unlike_conditions(read_folder(first).responses, read_folder(second).responses)
    assert told_unlike(unlike) == (f"other conditions: {words}" if words else "")


def test_another_decoding_and_a_side_that_does_not_tell(tmp_path: Path) -> None:
    first = read_folder(measured(tmp_path / "a")).responses
    short = read_folder(measured(tmp_path / "b", 20)).responses
    assert unlike_conditions(first, short) == {
        "decoding": "max_new_tokens 256 min_new_tokens 1 temperature 0.0, max_new_tokens 20 min_new_tokens 1 "
        "temperature 0.0"
    }
    for row in (silent := read_folder(measured(tmp_path / "c")).responses):
        row.model.pop("dtype")
    assert unlike_conditions(first, silent) == {"dtype": "float32, not told"}


def test_a_baseline_measured_otherwise_is_told_at_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base, out = measured(tmp_path / "a"), measured(tmp_path / "b", dtype="bfloat16")
    report(out, "model", base)
    told = "under other conditions: dtype (float32, bfloat16); a difference may come of that alone"
    assert told in " ".join(capsys.readouterr().out.split())
    assert told in (out / "report.html").read_text()
    assert json.loads((out / "report.json").read_text())["unlike"] == {"dtype": "float32, bfloat16"}
    report(out, "model", measured(tmp_path / "c", dtype="bfloat16"))
    assert "other conditions" not in capsys.readouterr().out


def test_compare_marks_the_run_and_says_what_differs(tmp_path: Path) -> None:
    runs = [measured(tmp_path / "a"), measured(tmp_path / "b", image_fit="crop"), measured(tmp_path / "c")]
    told = comparison(read_evaluated(runs))
    assert told["unlike"] == {"b": {"image fit": "pad, crop"}, "c": {}}
    lines = markdown(told).splitlines()
    assert "| metric | b (≠) | c |" in lines
    assert any("(≠) b was measured under other conditions: image fit (pad, crop)" in line for line in lines)
    assert "other conditions: image fit (pad, crop)" in page(told)
    rows = [line for line in csv_table(told).splitlines() if ",b," in line]
    assert rows and all("image fit (pad, crop)" in row for row in rows)
    chips = [part for part in page(told).split("<tr") if "not clear" in part]
    assert chips, "differences of marked runs keep what is said of them"


NOT_OURS = [
    "mm_safetybench",
    "vlsbench",
    "siuo",
    "strongreject",
    "mossbench",
    "mssbench",
    "jailbreakv_mini",
    "harmbench",
]


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_score_that_is_not_the_authors_says_so(name: str, tmp_path: Path) -> None:
    kind = BENCHMARKS[name]
    items = Toy(tmp_path).load()
    (way,) = directions(items, ["toy[harm]/asr"], {"toy": kind}, "keyword:vlguard").values()
    assert way["note"].startswith("not the authors' score: they decide by ")


def test_the_authors_own_judge_and_sets_judged_by_rules_have_no_such_note(tmp_path: Path) -> None:
    items = Toy(tmp_path).load()
    for kind, judge in ((BENCHMARKS["harmbench"], "guard:harmbench:x"), (BENCHMARKS["vlguard"], "keyword:vlguard")):
        assert directions(items, ["toy[harm]/asr"], {"toy": kind}, judge)["toy[harm]/asr"].keys() == {"side", "better"}


def test_the_note_stands_at_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Toy, "authors_decide", "GPT-4")
    out = measured(tmp_path / "a")
    report(out, "model")
    content = json.loads((out / "report.json").read_text())
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal_table(content))
    shown = console.export_text()
    assert "toy[harm]/asr *" in shown and "* not the authors' score: they decide by GPT-4" in shown
    note = "not the authors&#x27; score: they decide by GPT-4"
    assert (out / "report.html").read_text().count(note) >= 2
    assert "note" in json.loads((out / "metrics.json").read_text())["directions"]["toy[harm]/asr"]
    capsys.readouterr()
    assert score_main([str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("toy[harm]/asr ") and line.endswith("  *") for line in lines)
    assert "* not the authors' score: they decide by GPT-4" in lines
    told = comparison(read_evaluated([out, measured(tmp_path / "b")]))
    assert "toy[harm]/asr (lower is better; not the authors' score: they decide by GPT-4)" in markdown(told)
