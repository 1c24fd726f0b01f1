"""The check of batches: what it asks, keeps and tells."""

from __future__ import annotations

import json
from pathlib import Path

from fakes import ANSWER, FakeResponder, Toy

from vlsafe.answering import Answer, Decoding
from vlsafe.evaluation.batching import check_batching, read_batching
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.report_probes import batching_section
from vlsafe.evaluation.stages import evaluate


def test_flips_are_counted_kept_and_shown(tmp_path: Path) -> None:
    toy, out = Toy(tmp_path / "p"), tmp_path / "out"
    failed = Answer("", finish="error", error="boom")
    batched = FakeResponder({"toy/harm/1": "Another answer."})
    alone = FakeResponder({"toy/harm/2": failed})
    found = check_batching(toy.items(), batched, alone, Decoding(), out)
    assert (found["n"], found["n_error"], found["flipped"]) == (9, 1, ["toy/harm/1"])
    assert round(found["value"], 2) == 11.11
    assert read_batching(out) == found == json.loads((out / "batching.json").read_text())
    page = batching_section({"batching": found})
    assert "Of 9 items" in page and "1 got another answer" in page and "<code>toy/harm/1</code>" in page
    # The batched answers are the run's own: nothing is asked again, neither by the run nor by a second check.
    again = FakeResponder({})
    evaluate([toy], again, judge_named("keyword:vlsafe"), Decoding(), out)
    assert again.asked == []
    once_more = FakeResponder({})
    assert check_batching(toy.items(), again, once_more, Decoding(), out)["n"] == 10
    assert once_more.asked == ["toy/harm/2"]  # what had failed alone


def test_a_few_items_are_drawn_whatever_their_order(tmp_path: Path) -> None:
    items = Toy(tmp_path / "p").items()
    first, second = FakeResponder({}), FakeResponder({})
    check_batching(items, FakeResponder({}), first, Decoding(), tmp_path / "a", count=3)
    check_batching(items[::-1], FakeResponder({}), second, Decoding(), tmp_path / "b", count=3)
    assert len(first.asked) == 3 and sorted(first.asked) == sorted(second.asked)
    assert read_batching(tmp_path / "a")["value"] == 0 and ANSWER in (tmp_path / "a" / "alone.jsonl").read_text()


def test_without_a_check_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert read_batching(tmp_path) == {} and batching_section({"batching": {}}) == ""
