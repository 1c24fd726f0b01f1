"""Golden values of VQA's soft accuracy, and the traps of its normalisation."""

from __future__ import annotations

import json
import math

import pytest
from answering import FAILED, answered

from vlsafe.evaluation.benchmarks.vqa import TextVQA, VizWiz, VQAv2
from vlsafe.evaluation.benchmarks.vqa_score import normalised, soft_accuracy, tokenised
from vlsafe.evaluation.records import Item


@pytest.mark.parametrize(("matches", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_the_soft_accuracy_of_k_matches_is_the_least_of_one_and_three_tenths_of_k(matches: int, score: float) -> None:
    humans = ["red"] * matches + ["blue"] * (10 - matches)
    assert soft_accuracy("red", humans) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog.", "dog"),
        ("a Cat", "cat"),
        ("Two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("red,blue", "red blue"),
        ("red, blue", "red blue"),
        ("1,000 red,blue", "1000 redblue"),  # one digit,comma,digit and every comma goes without a space
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("left-hand", "left hand"),
        ("- left-hand", "lefthand"),  # beside a space anywhere, so deleted everywhere
        ("\nline\tbreak ", "line break"),
        ("yes!", "yes"),
        ("it's 5 o'clock", "it's 5 o'clock"),
        ("." * 40, "." * 8),  # the official code deletes at most 32 stops
    ],
)
def test_evalai_s_normalisation(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_llava_tokenises_before_it_normalises() -> None:
    assert tokenised("What's that, sir?") == "what 's that sir"


def vqa_item(kind: str, humans: list[str], answerable: str = "1", number: int = 1) -> Item:
    meta = {"normalise": kind, "answerable": answerable}
    return Item(f"v/{number}", "v", "val", "utility", "q", reference=json.dumps(humans), meta=meta)


@pytest.mark.parametrize(
    ("kind", "humans", "answer", "percent"),
    [
        ("always", ["2"] * 10, "two", 100),
        ("unless_equal", ["2"] * 10, "two", 0),  # all ten agree, so the official rule compares untouched text
        ("unless_equal", ["2"] * 9 + ["3"], "two", 100),
        ("textvqa", ["joe's"] * 10, "Joe's", 100),
        ("always", ["yes"] * 2 + ["no"] * 8, "Yes.", 60),
    ],
)
def test_vqa_scores_by_the_rule_that_its_name_says(kind: str, humans: list[str], answer: str, percent: float) -> None:
    item = vqa_item(kind, humans)
    metric = VQAv2.metrics([item], *answered([item], {item.id: answer}))["v[val]/accuracy"]
    assert metric.value == pytest.approx(percent)
    failed = TextVQA.metrics([item], *answered([item], {item.id: FAILED}))["v[val]/accuracy"]
    assert math.isnan(failed.value)
    assert (failed.n, failed.n_error) == (0, 1)


def test_a_model_that_refuses_everything_does_not_gain_on_what_can_be_answered() -> None:
    items = [vqa_item("textvqa", ["dog"] * 10, "1", 1), vqa_item("textvqa", ["unanswerable"] * 10, "0", 2)]
    metrics = VizWiz.metrics(items, *answered(items, {item.id: "Unanswerable." for item in items}))
    assert metrics["v[val]/accuracy"].value == 50
    assert metrics["v[val]/accuracy_answerable"].value == 0
    assert metrics["v[val]/unanswerable"].value == 100
