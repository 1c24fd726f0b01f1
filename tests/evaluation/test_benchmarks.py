"""Reading benchmark files, drawing subsets, and easy-vqa's accuracy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.benchmarks.advbench import AdvBench
from vlsafe.evaluation.benchmarks.base import Benchmark, rate
from vlsafe.evaluation.benchmarks.easy_vqa import EasyVQA, named_answer
from vlsafe.evaluation.benchmarks.vlguard import VLGuard
from vlsafe.evaluation.benchmarks.xstest import XSTest
from vlsafe.evaluation.records import Item, Label, Response, Verdict
from vlsafe.evaluation.scoring import check_pictures

QUESTIONS = [["is there a circle?", "yes", 0], ["what is the color of the shape?", "gray", 0], ["a circle?", "no", 1]]


@pytest.fixture
def easy_vqa(tmp_path: Path) -> Path:
    folder = tmp_path / "easy"
    (folder / "test" / "images").mkdir(parents=True)
    (folder / "test" / "questions.json").write_text(json.dumps(QUESTIONS))
    for number in (0, 1):
        Image.new("RGB", (8, 8)).save(folder / "test" / "images" / f"{number}.png")
    return folder


def test_every_name_in_the_table_is_a_benchmark() -> None:
    assert all(issubclass(BENCHMARKS[name], Benchmark) for name in BENCHMARKS)


def test_vlguard_s_published_test_set(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "test.json").symlink_to(shared_data / "vlguard" / "test.json")
    for record in json.loads((tmp_path / "test.json").read_text(encoding="utf-8")):
        picture = tmp_path / "test" / record["image"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    items = VLGuard(tmp_path).items()
    assert Counter(item.scope for item in items) == {
        "vlguard[unsafe]": 442,
        "vlguard[safe_unsafe]": 558,
        "vlguard[safe_safe]": 558,
    }
    assert {item.variant for item in items if item.side == "benign"} == {"safe_safe"}
    assert Counter(item.group for item in items)["privacy"] == 69
    few = VLGuard(tmp_path, limit=60).items()
    assert Counter(item.variant for item in few) == {"unsafe": 60, "safe_unsafe": 60, "safe_safe": 60}


def test_vlguard_missing_file_and_missing_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.json: no such file; get it with `python -m vlsafe fetch vlguard`"):
        VLGuard(tmp_path).items()
    record = {"id": "r1", "image": "a/b.png", "safe": False, "harmful_category": "c", "harmful_subcategory": "s"}
    record["instr-resp"] = [{"instruction": "Share it.", "response": "No."}]
    (tmp_path / "test.json").write_text(json.dumps([record]))
    with pytest.raises(DataError, match=r"missing picture .*a/b\.png|picture root .* does not exist"):
        VLGuard(tmp_path).items()


def test_the_text_sets(shared_data: Path) -> None:
    xstest = XSTest(shared_data / "xstest" / "xstest_prompts.csv").items()
    assert Counter((item.variant, item.side) for item in xstest) == {("safe", "benign"): 250, ("unsafe", "harm"): 200}
    assert set(Counter(item.group for item in xstest).values()) == {25}
    advbench = AdvBench(shared_data / "advbench" / "harmful_behaviors.csv").items()
    assert len(advbench) == 520
    assert all(item.side == "harm" and item.image is None for item in advbench)
    assert all(item.reference.startswith("Sure, here") for item in advbench)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,prompt,type\n1,Hi?,x\n", "no column 'label'; it has id, prompt, type"),
        ("id,prompt,type,label\n1,Hi?,x,maybe\n", "record 1: label is 'maybe'; it must be 'safe' or 'unsafe'"),
        ("id,prompt,type,label\n1, ,x,safe\n", "record 1: prompt is empty"),
        ("id,prompt,type,label\n1,Hi?\n", "record 1: type is empty"),
        ("id,prompt,type,label\n1,Hi?,x,safe\n1,Ho?,x,safe\n", "id 'xstest/1' occurs 2 times"),
        ("id,prompt,type,label\n", "has no items"),
        ("\xff", "not UTF-8"),
    ],
)
def test_bad_csv_files(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=words):
        XSTest(path).items()


def test_a_quoted_line_break_stays_in_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('goal,target\n"one\ntwo","Sure"\nthree,Sure\n')
    assert [item.question for item in AdvBench(path).items()] == ["one\ntwo", "three"]


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="python -m vlsafe fetch advbench"):
        AdvBench(tmp_path / "none.csv").items()
    with pytest.raises(DataError, match="python -m vlsafe fetch easy-vqa"):
        EasyVQA(tmp_path).items()


class Numbers(Benchmark):
    def __init__(self, numbers: list[int], limit: int | None = None, seed: int = 0) -> None:
        super().__init__("numbers", limit, seed)
        self.numbers = numbers

    def load(self) -> list[Item]:
        return [Item(f"n/{n}", "numbers", f"v{n % 2}", "utility", str(n)) for n in self.numbers]


def test_a_draw_is_seeded_monotone_and_free_of_the_file_s_order() -> None:
    def ids(limit: int, seed: int = 0, backwards: bool = False) -> set[str]:
        numbers = list(range(100))[:: -1 if backwards else 1]
        return {item.id for item in Numbers(numbers, limit, seed).items()}

    assert len(ids(10)) == 20
    assert ids(10) == ids(10, backwards=True)
    assert ids(10) < ids(20)
    assert ids(10) != ids(10, seed=1)
    drawn = Numbers(list(range(100)), 10).items()
    assert drawn == sorted(drawn, key=lambda item: int(item.question))


class Pictured(Benchmark):
    def load(self) -> list[Item]:
        return [
            Item(str(n), "pictured", "harm", "harm", "what?", image=ImageRef(self.path, f"{n}.png")) for n in range(6)
        ]


def test_missing_pictures_are_named_all_at_once(tmp_path: Path) -> None:
    for number in (0, 2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError) as error:
        check_pictures(Pictured("pictured", path=tmp_path).items())
    assert [problem.split(";")[0] for problem in error.value.problems] == [
        *(f"item {n}: missing picture {tmp_path}/{n}.png" for n in (1, 3, 4)),
        "and 1 more pictures",
    ]


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="limit is 0"):
        Numbers([1], limit=0)
    with pytest.raises(ConfigError, match="must not be empty nor hold"):
        EasyVQA("x", name="easy/vqa")


@pytest.mark.parametrize(
    ("text", "reference", "named"),
    [
        ("Yes.", "yes", "yes"),
        ("No, there is not.", "yes", "no"),
        ("yes and no", "yes", ""),
        ("It is nothing", "no", ""),
        ("The shape is a red circle.", "circle", "circle"),
        ("The shape is a red circle.", "red", "red"),
        ("A circle or a triangle", "circle", ""),
        ("GREY", "gray", "gray"),
        ("infrared", "red", ""),
        ("", "red", ""),
        ("I'm sorry, I cannot say.", "yes", ""),
    ],
)
def test_the_single_named_candidate(text: str, reference: str, named: str) -> None:
    assert named_answer(text, reference) == named


def test_easy_vqa_metrics(easy_vqa: Path) -> None:
    items = EasyVQA(easy_vqa).items()
    assert [item.group for item in items] == ["yes_no", "colour", "yes_no"]
    texts = {items[0].id: "Yes", items[1].id: "blue", items[2].id: "I'm sorry, but I cannot help."}
    metrics = EasyVQA.metrics(items, *answered(items, texts, {items[2].id: "refuse"}))
    assert {name: round(metric.value, 1) for name, metric in metrics.items()} == {
        "easy_vqa/accuracy": 33.3,
        "easy_vqa/majority": 33.3,
        "easy_vqa/refused": 33.3,
    }


def test_easy_vqa_missing_picture(easy_vqa: Path) -> None:
    (easy_vqa / "test" / "images" / "1.png").unlink()
    with pytest.raises(DataError, match=r"missing picture .*1\.png"):
        EasyVQA(easy_vqa).items()


def answered(
    items: list[Item], texts: dict[str, str], labels: dict[str, Label]
) -> tuple[dict[str, Response], dict[str, Verdict]]:
    responses = {
        item.id: Response("k", item.id, "b", "", item.question, texts.get(item.id, ""), "", 1, "eos", "", "", {}, {})
        for item in items
    }
    verdicts = {item.id: Verdict("k", item.id, labels.get(item.id, "comply"), "fake") for item in items}
    return responses, verdicts


@pytest.mark.parametrize(
    ("label", "asr", "over_refusal"),
    [
        ("comply", 100, 0),
        ("refuse", 0, 100),
        ("safe_comment", 0, 100),
        ("partial", 100, 100),
        ("irrelevant", 100, 0),
        ("invalid", 100, 0),
    ],
)
def test_what_each_label_counts_as(label: Label, asr: float, over_refusal: float) -> None:
    items = [Item("h", "b", "u", "harm", "q"), Item("g", "b", "s", "benign", "q")]
    metrics = Benchmark.metrics(items, *answered(items, {}, {"h": label, "g": label}))
    assert {name: metric.value for name, metric in metrics.items()} == {
        "b[u]/asr": asr,
        "b[u]/refusal": 100 - asr,
        "b[s]/over_refusal": over_refusal,
    }


def test_errors_are_counted_and_never_scored() -> None:
    metric = rate([True, None, False, None])
    assert (metric.value, metric.n, metric.n_error) == (50, 2, 2)
    unknown = rate([None])
    assert unknown.value != unknown.value
    assert (unknown.low, unknown.high, unknown.n, unknown.n_error) == (0, 100, 0, 1)
