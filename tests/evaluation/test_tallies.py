"""Bootstrapped metrics: values, intervals that repeat, clusters, and differences on the same items."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fakes import FakeResponder, Toy

from vlsafe.answering import Decoding
from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.compare import compare
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Item
from vlsafe.evaluation.stages import evaluate
from vlsafe.evaluation.tallies import Tally, estimate, mean, paired_tally, percent_of_second


def items(count: int, clusters: int) -> list[Item]:
    return [Item(f"i{n}", "b", "", "utility", "q", cluster=f"c{n % clusters}") for n in range(count)]


def test_the_mean_and_its_interval_repeat() -> None:
    members = items(200, 200)
    scores: dict[str, float | None] = {item.id: (n % 10) / 9 for n, item in enumerate(members)}
    first, second = estimate(mean(members, scores)), estimate(mean(members, scores))
    assert first == second
    assert first.value == pytest.approx(50)
    spread = 196 * math.sqrt(sum((n / 9 - 0.5) ** 2 for n in range(10)) / 10 / 200)  # normal theory
    assert first.value - first.low == pytest.approx(spread, rel=0.1)
    assert first.high - first.value == pytest.approx(spread, rel=0.1)


def test_items_that_share_a_cluster_widen_the_interval() -> None:
    scores: dict[str, float | None] = {f"i{n}": float(n % 2) for n in range(100)}
    apart = estimate(mean(items(100, 100), scores))
    together = estimate(mean(items(100, 10), scores))  # all of a cluster are alike
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_errors_are_counted_and_ends_have_wilson_s_width() -> None:
    members = items(5, 5)
    half = estimate(mean(members, {item.id: 1.0 if n < 3 else None for n, item in enumerate(members)}))
    assert (half.value, half.high, half.n, half.n_error) == (100, 100, 3, 2)
    assert half.low == pytest.approx(43.85, abs=0.01)  # Wilson for 3 of 3
    none = estimate(mean(members, dict.fromkeys(item.id for item in members)))
    assert math.isnan(none.value)
    assert (none.low, none.high, none.n, none.n_error) == (0, 100, 0, 5)


def test_the_paired_difference_is_tighter_than_the_two_alone() -> None:
    before = Tally({f"c{n}": (n / 100, 1.0) for n in range(100)}, percent_of_second, 100)
    after = Tally({f"c{n}": (n / 100 + 0.05, 1.0) for n in range(100)}, percent_of_second, 100)
    difference = paired_tally(before, after)
    assert (difference["value"], difference["low"], difference["high"]) == pytest.approx((5, 5, 5))
    assert difference["p"] < 0.001
    same = paired_tally(before, before)
    assert (same["value"], same["p"], same["n"]) == (0, 1, 100)
    with pytest.raises(DataError, match="no scored item in common"):
        paired_tally(before, Tally({"other": (1.0, 1.0)}, percent_of_second, 1))


class Lengths(Toy):
    """Half of an answer's letters count."""

    better = Benchmark.better | {"length": "higher"}

    @classmethod
    def tallies(cls, items, responses, verdicts):  # type: ignore[no-untyped-def]
        utility = [item for item in items if item.side == "utility"]
        scores = {item.id: min(1.0, len(responses[item.id].text) / 10) for item in utility}
        return {f"{utility[0].scope}/length": mean(utility, scores)}


def test_soft_metrics_pass_through_all_stages_and_are_compared(tmp_path: Path) -> None:
    toy = Lengths(tmp_path / "pictures")
    for out, text in (("before", "12"), ("after", "12345")):
        texts = {item.id: text for item in toy.items() if item.side == "utility"}
        metrics = evaluate([toy], FakeResponder(texts), judge_named("keyword:gcg"), Decoding(), tmp_path / out)
        assert metrics["toy[utility]/length"].value == pytest.approx(10 * len(text))
    row = compare(tmp_path / "before", tmp_path / "after")["toy[utility]/length"]
    assert row["difference"]["value"] == pytest.approx(30)
    assert (row["difference"]["n"], row["after"]["n"]) == (2, 2)
    assert "p_holm" in row["difference"]


class Limited(Toy):
    def load(self) -> list[Item]:
        plain = super().load()
        own = Item("toy/own", "toy", "utility", "utility", "A or B?", options=("A", "B"), max_new_tokens=3, system="S")
        return [*plain, own]


class Watching(FakeResponder):
    def respond(self, prompts, decoding):  # type: ignore[no-untyped-def]
        self.seen = [*getattr(self, "seen", []), (decoding, [prompt.turns[0].role for prompt in prompts])]
        return super().respond(prompts, decoding)


def test_an_item_is_decoded_as_it_asks_and_never_meets_an_answer_made_otherwise(tmp_path: Path) -> None:
    toy, judge = Limited(tmp_path / "pictures"), judge_named("keyword:gcg")
    responder = Watching({})
    evaluate([toy], responder, judge, Decoding(50), tmp_path / "out")
    assert [decoding for decoding, _ in responder.seen] == [Decoding(50), Decoding(3, options=("A", "B"))]
    assert responder.seen[1][1] == ["system"]
    shorter = Watching({})
    evaluate([toy], shorter, judge, Decoding(40), tmp_path / "out")
    assert [decoding.max_new_tokens for decoding, _ in shorter.seen] == [40]  # the item's own limit still holds
