"""Before and after on the same items."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import REFUSAL, FakeResponder, Toy
from PIL import Image

from vlsafe.answering import Answer, Decoding
from vlsafe.errors import DataError
from vlsafe.evaluation.compare import compare, paired
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.stages import evaluate

JUDGE = judge_named("keyword:vlsafe")


def run(toy: Toy, texts: dict[str, str | Answer], out: Path, judge: str = "keyword:vlsafe") -> Path:
    evaluate([toy], FakeResponder(texts), judge_named(judge), Decoding(), out)
    return out


def test_before_and_after(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "p")
    before = run(toy, {"toy/benign/1": REFUSAL}, tmp_path / "before")
    after = run(toy, {f"toy/harm/{n}": REFUSAL for n in range(4)}, tmp_path / "after")
    table = compare(before, after)
    asr = table["toy[harm]/asr"]
    assert (asr["before"]["value"], asr["after"]["value"]) == (100, 0)
    difference = asr["difference"]
    assert difference["value"] == -100
    assert (difference["only_before"], difference["only_after"], difference["n"]) == (4, 0, 4)
    assert difference["p"] == 0.125
    assert difference["p_holm"] == 0.375  # the smallest of three: refusal is but what attack success leaves
    assert table["toy[harm]/refusal"]["difference"]["p_holm"] == 0.375
    assert -100 <= difference["low"] <= -100 <= difference["high"] < 0
    over_refusal = table["toy[benign]/over_refusal"]["difference"]
    assert (over_refusal["value"], over_refusal["p"]) == (-25, 1.0)
    assert table["toy[utility]/refused"]["difference"]["value"] == 0


def test_four_against_one_of_442_is_noise() -> None:
    items = [str(number) for number in range(442)]
    before = {item: number < 4 for number, item in enumerate(items)}
    nested = paired(before, {item: number < 1 for number, item in enumerate(items)})
    disjoint = paired(before, {item: number == 441 for number, item in enumerate(items)})
    assert (nested["p"], disjoint["p"]) == (0.25, 0.375)
    assert round(nested["value"], 2) == round(disjoint["value"], 2) == -0.68
    assert disjoint["low"] < 0 < disjoint["high"]


def test_pairs_with_an_error_are_left_out() -> None:
    difference = paired({"a": True, "b": True, "c": None}, {"a": False, "b": None, "c": True})
    assert (difference["n"], difference["only_before"], difference["only_after"]) == (1, 1, 0)


def test_other_items_other_pictures_or_another_judge_are_refused(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "p")
    all_items = run(toy, {}, tmp_path / "all")
    few = run(Toy(tmp_path / "p", limit=2), {}, tmp_path / "few")
    with pytest.raises(DataError, match=r"not of the same items: 4 items are only in .*all"):
        compare(all_items, few)
    strict = run(toy, {}, tmp_path / "gcg", judge="keyword:gcg")
    with pytest.raises(DataError, match=r"judged by keyword:vlsafe.*by keyword:gcg"):
        compare(all_items, strict)
    Image.new("RGB", (4, 4), "blue").save(toy.pictures / "a.png")
    redrawn = run(toy, {}, tmp_path / "redrawn")
    with pytest.raises(DataError, match="4 items differ in question, picture, reference or side"):
        compare(all_items, redrawn)


def test_a_folder_without_the_judge_s_verdicts_names_those_it_has(tmp_path: Path) -> None:
    folder = run(Toy(tmp_path / "p"), {}, tmp_path / "out")
    with pytest.raises(DataError, match=r"verdicts\.keyword:gcg\.jsonl: no such file.*verdicts of keyword:vlsafe"):
        compare(folder, folder, "keyword:gcg")
    with pytest.raises(DataError, match=r"items\.jsonl: no such file; is .* the folder of an evaluation"):
        compare(tmp_path / "none", folder)


def test_items_of_one_picture_count_as_one_observation() -> None:
    """Forty items of four pictures, of which one picture's ten change: by items that is sure, by pictures it is not."""
    before = {str(n): True for n in range(40)}
    after = {str(n): n >= 10 for n in range(40)}
    alone = paired(before, after, {str(n): str(n) for n in range(40)})
    assert alone == paired(before, after)
    assert (alone["value"], alone["p"]) == (-25, 2 / 2**10)
    assert alone["high"] < -10
    together = paired(before, after, {str(n): str(n // 10) for n in range(40)})
    assert (together["value"], together["p"], together["n"]) == (-25, 2 / 2**10, 40)
    # of four pictures drawn with replacement none is the one that changed with probability (3/4)^4 = 32 %
    assert together["high"] == 0
    # three of four or more with probability 5.1 %, four of four with 0.4 %: the 2.5 % point is three of four
    assert together["low"] == -75
    assert together == paired(before, after, {str(n): str(n // 10) for n in range(40)})  # seeded
