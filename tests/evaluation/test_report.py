from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from reports import after_only, report, side
from rich.console import Console

from vlsafe.errors import DataError, VlsafeError
from vlsafe.evaluation.records import Item, Response, Verdict
from vlsafe.evaluation.report import completed, curves_from_csv, terminal_table, write_report
from vlsafe.evaluation.report_examples import examples
from vlsafe.evaluation.report_text import change, count, cut, duration, headline, number, p_value, rate


def printed(table: Any, width: int = 140) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def without(whole: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**whole, "metrics": {name: row for name, row in whole["metrics"].items() if name not in names}}


# --- writing ------------------------------------------------------------------------------------------------------


def test_report_json_holds_exactly_the_report(tmp_path: Path) -> None:
    page = write_report(report(), tmp_path / "new" / "run")
    assert page == tmp_path / "new" / "run" / "report.html"
    assert json.loads((page.parent / "report.json").read_text(encoding="utf-8")) == report()
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]


def test_left_out_parts_are_written_empty(tmp_path: Path) -> None:
    needed = ("title", "created", "judge", "metrics", "directions", "environment")
    page = write_report({key: after_only()[key] for key in needed}, tmp_path)
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["trained"] == written["phases"] == written["examples"] == written["notes"] == []
    assert written["data"] == {"samples": 0, "parts": []}
    html = page.read_text(encoding="utf-8")
    for absent in ("What was trained", "Data mixed", "Time</h2>", "Loss", "Example answers", "Difference"):
        assert absent not in html, absent


def test_refused_report_leaves_the_old_one_alone(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    old = (tmp_path / "report.json").read_bytes()
    with pytest.raises(VlsafeError):
        write_report(without(report(), "vlguard[safe_safe]/over_refusal"), tmp_path)
    assert (tmp_path / "report.json").read_bytes() == old


def test_unwritable_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VlsafeError, match="file"):
        write_report(report(), tmp_path / "file")


# --- never an ASR alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda r: write_report(r, Path("never")), terminal_table, completed])
def test_asr_without_a_benign_number_is_refused(make: Any) -> None:
    alone = without(report(), "vlguard[safe_safe]/over_refusal")
    with pytest.raises(VlsafeError, match=r"no attack success without over-refusal.*before tuning.*add a benign"):
        make(alone)
    assert not Path("never").exists()


def test_benign_number_must_be_on_the_same_side_and_scored() -> None:
    whole = report()
    row = whole["metrics"]["vlguard[safe_safe]/over_refusal"]
    row["after"] = side(None, 0.0, 100.0, n=0, n_error=50)
    with pytest.raises(VlsafeError, match="a number after tuning"):
        completed(whole)
    del row["before"], row["difference"]
    row["after"] = side(3.0, 1.0, 9.0)
    with pytest.raises(VlsafeError, match="a number before tuning"):
        completed(whole)


def test_an_asr_cannot_pass_as_utility() -> None:
    whole = report()
    whole["directions"]["vlguard[unsafe]/asr"]["side"] = "utility"
    with pytest.raises(VlsafeError, match="attack success is a harm-side metric, not utility"):
        completed(whole)


def test_utility_alone_is_a_report() -> None:
    names = [name for name in report()["metrics"] if not name.startswith("easy_vqa")]
    assert headline(completed(without(report(), *names))) == "easy_vqa accuracy rose from 31\u00a0% to 62\u00a0%."


# --- validation -----------------------------------------------------------------------------------------------------


def test_all_problems_are_named_at_once() -> None:
    whole = report(curves={"step": [0, 1], "loss": [1.0]})
    del whole["directions"]["easy_vqa/accuracy"]
    del whole["metrics"]["advbench[text]/asr"]["after"]["n_error"]
    whole["metrics"]["vlguard[unsafe]/asr"]["before"]["low"] = 99.0
    with pytest.raises(VlsafeError) as caught:
        completed(whole)
    for said in (
        "directions['easy_vqa/accuracy'] must hold side",
        "metrics['advbench[text]/asr']['after'] lacks n_error",
        "metrics['vlguard[unsafe]/asr']['before']: 99.0 <= 96.0 <= 98.9 does not hold",
        "curves['loss'] has 1 values for 2 steps",
    ):
        assert said in str(caught.value)


def test_missing_and_unknown_keys() -> None:
    whole = report(example=[])
    del whole["judge"]
    with pytest.raises(VlsafeError, match="'judge' is missing; 'example' is no key of a report"):
        completed(whole)


def test_nan_rate_is_refused_and_nan_loss_becomes_a_gap_with_a_note() -> None:
    broken = report()
    broken["metrics"]["easy_vqa/accuracy"]["after"]["value"] = math.nan
    with pytest.raises(VlsafeError, match="nan"):
        completed(broken)
    full = completed(report(curves={"step": [0, 10, 20], "loss": [1.0, math.nan, math.inf]}))
    assert full["curves"]["loss"] == [1.0, None, None]
    assert full["notes"] == ["A note.", "loss was not finite at 2 of 3 logged steps, first at step 10."]


# --- words ----------------------------------------------------------------------------------------------------------


def test_headline_names_means_as_means() -> None:
    assert headline(report()).replace("\u00a0", " ") == (
        "Attack success fell from 92 % to 2 % on average over 2 harm-side sets; over-refusal rose from 0 % to 3 %; "
        "easy_vqa accuracy rose from 31 % to 62 %."
    )
    assert headline(after_only()).replace("\u00a0", " ") == (
        "Attack success is 2 % on average over 2 harm-side sets; over-refusal is 3 %; easy_vqa accuracy is 62 %."
    )


def test_headline_compares_no_mean_over_different_sets() -> None:
    whole = report()
    del whole["metrics"]["advbench[text]/asr"]["before"]
    assert headline(whole).startswith("Attack success is 2\u00a0% on average over 2 harm-side sets")


def test_change_needs_an_interval_without_zero() -> None:
    assert change({"value": -9.0, "low": -12.0, "high": -2.0}, "lower") == "better"
    assert change({"value": -9.0, "low": -12.0, "high": -2.0}, "higher") == "worse"
    assert change({"value": -9.0, "low": -12.0, "high": 0.0}, "lower") == "not clear"


def test_numbers_as_words() -> None:
    assert [rate(5.66), rate(100.0), rate(0.04)] == ["5.7\u00a0%", "100\u00a0%", "0\u00a0%"]
    assert [number(-88.04, signed=True), number(3, signed=True), number(-0.01, signed=True)] == ["−88.0", "+3.0", "0.0"]
    assert [p_value(1e-9), p_value(0.0312)] == ["< 0.001", "0.031"]
    assert [duration(4.21), duration(59.7), duration(185), duration(7620)] == [
        "4.2 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
    assert count(134515008) == "134\u202f515\u202f008"
    assert cut("short", 10) == "short"
    assert cut("one two three four", 14) == "one two three …"


def test_terminal_table_keeps_brackets_and_signs() -> None:
    text = printed(terminal_table(report()))
    assert "vlguard[unsafe]/asr" in text and "−92.0 [−97.5, −78.0]" in text and "< 0.001" in text
    assert text.index("asr") < text.index("over_refusal") < text.index("accuracy")
    single = printed(terminal_table(after_only()))
    assert "difference" not in single and "[1.1, 13.5]" in single
    assert max(map(len, printed(terminal_table(report()), width=80).splitlines())) <= 80


def test_terminal_table_counts_failures_and_shows_no_rate_without_items() -> None:
    whole = after_only()
    whole["metrics"]["easy_vqa/accuracy"]["after"] = side(None, 0.0, 100.0, n=0, n_error=7)
    line = next(line for line in printed(terminal_table(whole)).splitlines() if "accuracy" in line)
    assert "0 (+7 failed)" in line and "None" not in line


# --- curves -----------------------------------------------------------------------------------------------------------


def test_curves_from_what_csv_logger_writes(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    logger.log_metrics({"train/loss": 3.0, "train/loss/safety": 2.0, "train/supervised_tokens": 7.0}, step=0)
    logger.log_metrics({"lr-AdamW": 1e-3}, step=0)
    logger.log_metrics({"train/loss": 1.5, "train/loss/text": 1.0}, step=5)
    logger.log_metrics({"val/loss": 9.0}, step=5)
    logger.save()
    assert curves_from_csv(tmp_path / "metrics.csv") == {
        "step": [0, 5],
        "loss": [3.0, 1.5],
        "loss/safety": [2.0, None],
        "loss/text": [None, 1.0],
    }


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_repeated_steps_merge_and_the_later_value_holds(tmp_path: Path) -> None:
    rows = [
        {"step": "9", "train/loss": "5", "train/loss/a": ""},
        {"step": "3", "train/loss": "4", "train/loss/a": ""},
        {"step": "3", "train/loss": "", "train/loss/a": "2"},
        {"step": "9", "train/loss": "1", "train/loss/a": ""},
    ]
    found = curves_from_csv(write_csv(tmp_path / "metrics.csv", rows))
    assert found == {"step": [3, 9], "loss": [4.0, 1.0], "loss/a": [2.0, None]}


def test_no_logged_loss_gives_no_curves(tmp_path: Path) -> None:
    assert curves_from_csv(tmp_path / "metrics.csv") == {}
    assert curves_from_csv(write_csv(tmp_path / "metrics.csv", [{"step": "1", "val/loss": "2"}])) == {}


def test_a_broken_csv_names_file_and_line(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "metrics.csv", [{"step": "1", "train/loss": "2"}, {"step": "2", "train/loss": "two"}])
    with pytest.raises(DataError, match=r"metrics\.csv, line 3: .*'two'"):
        curves_from_csv(path)
    with pytest.raises(DataError, match="no column 'step'"):
        curves_from_csv(write_csv(path, [{"a": "1"}]))


# --- examples ---------------------------------------------------------------------------------------------------------


def run(items: list[Item], texts: dict[str, tuple[str, str]], when: str) -> tuple[list[Response], list[Verdict]]:
    responses, verdicts = [], []
    for item in items:
        text, label = texts.get(item.id, ("Yes.", "comply"))
        key = f"{when}-{item.id}"
        responses.append(
            Response(key, item.id, item.benchmark, item.variant, item.question, text, "", 1, "eos", "", "", {}, {})
        )
        verdicts.append(Verdict(key, item.id, label, "keyword:vlsafe"))  # type: ignore[arg-type]
    return responses, verdicts


def harm(count: int) -> list[Item]:
    return [Item(f"h{number}", "toy", "unsafe", "harm", f"Question {number}?") for number in range(count)]


def test_flips_come_first_and_the_draw_ignores_order() -> None:
    items = [*harm(30), Item("q", "quiz", "", "utility", "2 + 2?", reference="4")]
    before, verdicts_before = run(items, {}, "before")
    after, verdicts_after = run(items, {"h17": ("No.", "refuse"), "h4": ("No.", "refuse")}, "after")
    chosen = examples(items, before, after, verdicts_before, verdicts_after)
    assert {chosen[0]["id"], chosen[1]["id"]} == {"h4", "h17"}
    assert [each["scope"] for each in chosen] == ["toy[unsafe]"] * 3 + ["quiz"]
    assert chosen[3]["reference"] == "4" and chosen[3]["before"] == {"text": "Yes.", "label": "comply"}
    backwards = examples(items[::-1], before[::-1], after[::-1], verdicts_before[::-1], verdicts_after[::-1])
    assert {each["id"] for each in backwards} == {each["id"] for each in chosen}
    draws = {examples(items, before, after, verdicts_before, verdicts_after, seed=seed)[2]["id"] for seed in range(8)}
    assert len(draws) > 1


def test_harm_side_answers_are_cut_in_the_record_too() -> None:
    items = harm(1)
    after, verdicts = run(items, {"h0": ("word " * 200, "comply")}, "after")
    [chosen] = examples(items, [], after, [], verdicts)
    assert "before" not in chosen
    assert len(chosen["after"]["text"]) <= 162 and chosen["after"]["text"].endswith(" …")


def test_an_item_without_an_answer_is_an_error() -> None:
    items = harm(2)
    responses, verdicts = run(items, {}, "after")
    with pytest.raises(DataError, match="item 'h1' has no response before tuning; run the evaluation again"):
        examples(items, responses[:1], responses, verdicts[:1], verdicts)
