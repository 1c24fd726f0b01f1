"""Golden values of POPE and MME: how a yes or a no is read, and what becomes of neither."""

from __future__ import annotations

import pytest
from answering import FAILED, answered

from vlsafe.evaluation.benchmarks.answers import yes_or_no
from vlsafe.evaluation.benchmarks.mme import MME, mme_answer
from vlsafe.evaluation.benchmarks.pope import POPE
from vlsafe.evaluation.records import Item


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Yes", "yes"),
        ("Yes.", "yes"),
        ("no, there is not", "no"),
        ("There is no dog.", "no"),
        ("I'm sorry, I cannot help with that.", ""),  # LLaVA's rule reads a yes
        ("I am not sure", ""),
        ("yes and no? no", "yes"),
        ("either no or yes", ""),
        ("Nothing here", ""),
        ("", ""),
    ],
)
def test_yes_no_and_other(text: str, read: str) -> None:
    assert yes_or_no(text) == read


def pope_items() -> list[Item]:
    labels = ["yes", "yes", "no", "no"]
    return [
        Item(f"{s}{n}", "pope", s, "utility", "q", reference=label, cluster=f"c{n}")
        for s in ("random", "popular", "adversarial")
        for n, label in enumerate(labels)
    ]


def test_pope_counts_three_ways() -> None:
    items = pope_items()
    texts = {"random0": "yes", "random1": "I'm sorry, I cannot", "random2": "no", "random3": "Yes, there is"}
    texts |= {f"{s}{n}": w for s in ("popular", "adversarial") for n, w in enumerate(["yes", "yes", "no", "no"])}
    metrics = POPE.metrics(items, *answered(items, texts))
    values = {name: round(metric.value, 2) for name, metric in metrics.items() if "[random]" in name}
    assert values == {
        "pope[random]/accuracy": 50.0,
        "pope[random]/unparsed": 25.0,
        "pope[random]/refused": 0.0,
        "pope[random]/precision": 50.0,  # 1 of 2 yeses is right
        "pope[random]/recall": 50.0,  # the refusal misses an object that is there
        "pope[random]/f1": 50.0,
        "pope[random]/yes_ratio": 50.0,  # of the predictions
    }
    assert metrics["pope/f1_mean"].value == pytest.approx((50 + 100 + 100) / 3)
    refusing = POPE.metrics(items, *answered(items, dict.fromkeys(texts, "I'm sorry.")))
    assert refusing["pope[random]/yes_ratio"].value == 0  # some tools take it from the labels, so it is always 50
    assert refusing["pope[random]/accuracy"].value == 0
    failed = POPE.metrics(items, *answered(items, texts | {"random0": FAILED}))
    assert (failed["pope[random]/f1"].n, failed["pope[random]/f1"].n_error) == (3, 1)


@pytest.mark.parametrize(
    ("text", "read"),
    [("Yes.", "yes"), ("n", "no"), ("not sure", "no"), ("Sorry, no", ""), ("YES, it is", "yes"), ("The answer", "")],
)
def test_mme_reads_the_first_four_characters(text: str, read: str) -> None:
    assert mme_answer(text) == read


def mme_items(subtask: str, pictures: int) -> list[Item]:
    return [
        Item(f"{subtask}{p}{side}", "mme", subtask, "utility", "q", reference=side, cluster=f"{subtask}/{p}")
        for p in range(pictures)
        for side in ("yes", "no")
    ]


def test_mme_s_points_are_accuracy_plus_both_right() -> None:
    items = [*mme_items("OCR", 2), *mme_items("count", 1), *mme_items("code_reasoning", 1)]
    texts = {item.id: item.reference for item in items} | {"OCR1no": "yes", "count0yes": "no"}
    metrics = MME.metrics(items, *answered(items, texts))
    assert metrics["mme[OCR]/accuracy"].value == 75
    assert metrics["mme[OCR]/accuracy_plus"].value == 50
    assert metrics["mme[OCR]/accuracy_plus"].n == 2
    # OCR has 75 + 50 of 200 points, count 50 + 0, together 175 of 400
    assert metrics["mme/perception"].value == pytest.approx(100 * 175 / 400)
    assert metrics["mme/cognition"].value == 100


def test_mme_leaves_a_picture_with_a_failed_answer_out_of_both_halves() -> None:
    items = mme_items("OCR", 2)
    texts = {item.id: item.reference for item in items} | {"OCR1no": FAILED}
    metrics = MME.metrics(items, *answered(items, texts))
    assert metrics["mme/perception"].value == 100
    assert (metrics["mme/perception"].n, metrics["mme/perception"].n_error) == (2, 2)
