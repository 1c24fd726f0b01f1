"""Win rates: both orders, ties, failures, empty rivals, and nothing asked twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from answering import FAILED, answered
from fakes import FakeResponder, Toy

from vlsafe.answering import Decoding
from vlsafe.errors import DataError, VlsafeError
from vlsafe.evaluation.commands import score_main
from vlsafe.evaluation.folder import read_folder
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.pairs import Pair, Preference, Winner, compare_pairs, pairs_of, win_rate
from vlsafe.evaluation.records import Item
from vlsafe.evaluation.scoring import score
from vlsafe.evaluation.stages import evaluate

Rule = Callable[[Pair], Winner]


class FakePairJudge:
    name = "fake"

    def __init__(self, rule: Rule, version: str = "1") -> None:
        self.rule = rule
        self.version = version
        self.asked: list[str] = []

    def prefer(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            self.asked.append(pair.id)
            yield Preference(pair.id, self.rule(pair))


def longer(pair: Pair) -> Winner:
    if len(pair.first) == len(pair.second):
        return "tie"
    return "first" if len(pair.first) > len(pair.second) else "second"


def items(*rivals: str) -> list[Item]:
    return [Item(f"i{n}", "b", "", "utility", "q?", meta={"rival": rival}) for n, rival in enumerate(rivals)]


def judged(rule: Rule, texts: dict[str, str], rivals: list[str], path: Path) -> tuple[float, int, int, int, int]:
    asked = items(*rivals)
    responses, _ = answered(asked, texts)
    result = win_rate(asked, compare_pairs(asked, responses, FakePairJudge(rule), path))
    return result.win_rate.value, result.win_rate.n, result.win_rate.n_error, result.excluded, result.swayed


def test_wins_losses_and_ties(tmp_path: Path) -> None:
    texts = {"i0": "long answer", "i1": "x", "i2": "same"}
    assert judged(longer, texts, ["short", "longer", "same"], tmp_path / "p") == (50, 3, 0, 0, 0)
    assert judged(longer, {"i0": "long answer"}, ["short"], tmp_path / "q") == (100, 1, 0, 0, 0)


@pytest.mark.parametrize("winner", ["first", "second"])
def test_a_judge_that_only_looks_at_the_position_gives_one_half(winner: Winner, tmp_path: Path) -> None:
    texts = {f"i{n}": "own" for n in range(5)}
    assert judged(lambda pair: winner, texts, ["rival"] * 5, tmp_path / "p") == (50, 5, 0, 0, 5)


def test_empty_rivals_are_left_out_and_failures_are_errors_not_losses(tmp_path: Path) -> None:
    texts = {"i0": "long answer", "i1": "anything", "i2": FAILED, "i3": "long answer"}

    def rule(pair: Pair) -> Winner:
        return "error" if pair.id == "i3#own-second" else longer(pair)

    assert judged(rule, texts, ["a", " ", "b", "c"], tmp_path / "p") == (100, 1, 2, 1, 0)


def test_only_what_is_missing_or_failed_is_asked_again(tmp_path: Path) -> None:
    asked, path = items("a", "b"), tmp_path / "preferences.jsonl"
    responses, _ = answered(asked, {"i0": "own 0", "i1": "own 1"})
    failing = FakePairJudge(lambda pair: "error" if pair.id.startswith("i1") else "first")
    compare_pairs(asked, responses, failing, path)
    again = FakePairJudge(longer)
    compare_pairs(asked, responses, again, path)
    assert again.asked == ["i1#own-first", "i1#own-second"]
    newer = FakePairJudge(longer, version="2")
    compare_pairs(asked, responses, newer, path)
    assert len(newer.asked) == 4
    changed, _ = answered(asked, {"i0": "another text", "i1": "own 1"})
    other = FakePairJudge(longer, version="2")
    compare_pairs(asked, changed, other, path)
    assert other.asked == ["i0#own-first", "i0#own-second"]


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item has a rival's answer"):
        pairs_of([Item("i", "b", "", "utility", "q")], {})
    with pytest.raises(DataError, match="item 'i0' has no response"):
        pairs_of(items("a"), {})

    class Silent(FakePairJudge):
        def prefer(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
            return iter(())

    responses, _ = answered(items("a"), {"i0": "x"})
    with pytest.raises(VlsafeError, match="did not answer each of 2 pairs"):
        compare_pairs(items("a"), responses, Silent(longer), tmp_path / "p")


class Rivalled(Toy):
    """Each benign item has a rival's answer; a probe's copy of it is not compared."""

    def load(self) -> list[Item]:
        return [replace(item, meta={"rival": "short"}) if item.side == "benign" else item for item in super().load()]


def test_win_rates_are_metrics_of_the_folder_and_are_scored_again_from_files(tmp_path: Path) -> None:
    toy = Rivalled(tmp_path / "p").with_probes(["system=safety"])
    responder = FakeResponder({"toy/benign/0": "x"})
    judge, out = judge_named("keyword:vlsafe"), tmp_path / "out"
    metrics = evaluate([toy], responder, judge, Decoding(), out, pair_judge=FakePairJudge(longer))
    assert (metrics["toy[benign]/win_rate"].value, metrics["toy[benign]/win_rate"].n) == (75, 4)
    assert [name for name in metrics if name.endswith("win_rate")] == ["toy[benign]/win_rate"]
    kept = read_folder(out)
    assert score(kept.items, kept.responses, kept.verdicts, kept.benchmarks, kept.preferences) == metrics
    with pytest.raises(DataError, match="no item has a rival's answer"):
        evaluate([Toy(tmp_path / "p")], responder, judge, Decoding(), out, pair_judge=FakePairJudge(longer))


def test_preferences_that_failed_fail_the_run_above_one_percent_after_its_files_are_written(tmp_path: Path) -> None:
    def rule(pair: Pair) -> Winner:
        return "error" if pair.id == "toy/benign/3#own-second" else "first"

    judge, out, toy = judge_named("keyword:vlsafe"), tmp_path / "out", Rivalled(tmp_path / "p")
    with pytest.raises(VlsafeError, match=r"1 of 8 preferences are errors, more than 1 %"):
        evaluate([toy], FakeResponder({}), judge, Decoding(), out, pair_judge=FakePairJudge(rule))
    kept = read_folder(out).metrics()["toy[benign]/win_rate"]
    assert (kept.value, kept.n, kept.n_error) == (50, 3, 1)
    with pytest.raises(VlsafeError, match=r"1 of 8 preferences are errors"):
        score_main([str(out)])
    mended = FakePairJudge(longer)
    evaluate([toy], FakeResponder({}), judge, Decoding(), out, pair_judge=mended)
    assert mended.asked == ["toy/benign/3#own-second"]  # only what failed


def test_preferences_on_another_model_s_answers_do_not_count(tmp_path: Path) -> None:
    judge, out, toy = judge_named("keyword:vlsafe"), tmp_path / "out", Rivalled(tmp_path / "p")
    evaluate([toy], FakeResponder({}), judge, Decoding(), out, pair_judge=FakePairJudge(longer))
    evaluate([toy], FakeResponder({"toy/benign/0": "x"}, "w2"), judge, Decoding(), out)
    assert read_folder(out).preferences == []
    again = FakePairJudge(longer)
    metrics = evaluate([toy], FakeResponder({"toy/benign/0": "x"}, "w2"), judge, Decoding(), out, pair_judge=again)
    assert again.asked == ["toy/benign/0#own-first", "toy/benign/0#own-second"]  # the same words need no second look
    assert metrics["toy[benign]/win_rate"].n == 4
