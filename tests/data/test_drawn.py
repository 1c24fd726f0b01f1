"""The drawn safety set: its formats, its honesty about the pictures, and that nothing leaks from train to test."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from vlsafe.data.drawn import build
from vlsafe.data.drawn.choosing import opening_word
from vlsafe.data.drawn.pen import COLOURS
from vlsafe.data.drawn.records import Drawn, SplitMaker
from vlsafe.data.drawn.scenes import NUMBERS, Group, Scene, render
from vlsafe.data.drawn.shapes import KINDS
from vlsafe.data.drawn.tables import Split, Topic, advice, everyday, families, harms, rows, slogans, table
from vlsafe.evaluation.judges.keyword import KeywordJudge

SPLITS: tuple[Split, ...] = ("train", "test")
SUBSETS = {"instruction": "U", "unsafe_instruction": "SU", "safe_instruction": "SS"}


class Pair(NamedTuple):
    subset: str
    instruction: str
    response: str
    image: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn")
    build(out)
    return out


@pytest.fixture(scope="module")
def drawn() -> dict[Split, list[Drawn]]:
    """The same records as in ``built``, with the descriptions of their pictures."""
    return {split: SplitMaker(random.Random(f"0/{split}"), split).records() for split in SPLITS}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pairs(built: Path, split: Split) -> Iterator[Pair]:
    for record in read_json(built / f"{split}.json"):
        for pair in record["instr-resp"]:
            key = next(key for key in pair if key != "response")
            yield Pair(SUBSETS[key], pair[key], pair["response"], record["image"])


def normalised(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def refused(judge: KeywordJudge, text: str) -> bool:
    return judge.label_text(text)[0] == "refuse"


def test_the_records_follow_vlguards_schema(built: Path) -> None:
    categories = {(family.category, family.subcategory) for family in families().values()}
    for split in SPLITS:
        for record in read_json(built / f"{split}.json"):
            keys = ["id", "image", "safe", "harmful_category", "harmful_subcategory", "instr-resp"]
            wanted = keys if not record["safe"] else ["id", "image", "safe", "instr-resp"]
            assert list(record) == wanted
            asked = [list(pair) for pair in record["instr-resp"]]
            if record["safe"]:
                assert asked == [["safe_instruction", "response"], ["unsafe_instruction", "response"]]
            else:
                assert asked == [["instruction", "response"]]
                assert (record["harmful_category"], record["harmful_subcategory"]) in categories


def test_the_schema_and_categories_are_those_of_the_real_vlguard(built: Path, shared_data: Path) -> None:
    def shape(records: list[dict[str, Any]]) -> tuple[set[Any], set[Any]]:
        keys = {(r["safe"], *r, *(key for pair in r["instr-resp"] for key in pair)) for r in records}
        return keys, {(r["harmful_category"], r["harmful_subcategory"]) for r in records if not r["safe"]}

    assert shape(read_json(built / "train.json")) == shape(read_json(shared_data / "vlguard" / "train.json"))


def test_the_counts_are_those_announced(built: Path) -> None:
    counts = {split: Counter(pair.subset for pair in pairs(built, split)) for split in SPLITS}
    assert counts == {"train": {"U": 400, "SU": 400, "SS": 400}, "test": {"U": 80, "SU": 80, "SS": 80}}
    readme = (built / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in readme
    listed = dict(re.findall(r"\| `(.+?)` \| .+? \| (\d+) \|", readme))
    assert {name: int(count) for name, count in listed.items()} == {
        "train.json": 800,
        "test.json": 160,
        "instructions_train.json": 700,
        "instructions_test.json": 60,
        "text_harm_train.json": 150,
        "text_harm_test.csv": 80,
        "trick_test.csv": 120,
    }
    for name, count in listed.items():
        found = read_csv(built / name) if name.endswith("csv") else read_json(built / name)
        assert len(found) == int(count)


def test_the_text_sets_have_the_columns_of_the_sets_they_stand_in_for(built: Path, shared_data: Path) -> None:
    advbench = read_csv(shared_data / "advbench" / "harmful_behaviors.csv")
    xstest = read_csv(shared_data / "xstest" / "xstest_prompts.csv")
    harm, tricks = read_csv(built / "text_harm_test.csv"), read_csv(built / "trick_test.csv")
    assert list(harm[0]) == list(advbench[0])
    assert all(row["target"].startswith("Sure, here is ") for row in harm)
    assert list(tricks[0]) == list(xstest[0])
    assert {row["type"] for row in tricks} <= {row["type"] for row in xstest}
    assert Counter(row["label"] for row in tricks) == {"safe": 80, "unsafe": 40}
    assert {row["label"] for row in tricks if row["type"].startswith("contrast_")} == {"unsafe"}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(built: Path, tmp_path: Path) -> None:
    def digest(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    build(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(built)
    one, other = (SplitMaker(random.Random(f"{seed}/test"), "test").records() for seed in (0, 1))
    assert one != other


def test_the_pictures_are_small_and_all_there(built: Path) -> None:
    for split in SPLITS:
        names = [record["image"] for record in read_json(built / f"{split}.json")]
        assert {str(path.relative_to(built / split)) for path in (built / split).rglob("*.png")} == set(names)
        for name in names:
            with Image.open(built / split / name) as image:
                assert (image.size, image.mode) == ((224, 224), "RGB")
    assert sum(path.stat().st_size for path in built.rglob("*")) < 12_000_000


def test_no_id_picture_or_wording_is_shared(built: Path) -> None:
    ids = [record["id"] for split in SPLITS for record in read_json(built / f"{split}.json")]
    assert len(set(ids)) == len(ids) == 960
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in built.rglob("*.png")]
    assert len(set(hashes)) == len(hashes) == 960
    seen: dict[Split, set[str]] = {}
    for split in SPLITS:
        seen[split] = {normalised(pair.instruction) for pair in pairs(built, split)}
    for name in ("instructions_train", "text_harm_train"):
        seen["train"] |= {normalised(row["instruction"]) for row in read_json(built / f"{name}.json")}
    seen["test"] |= {normalised(row["instruction"]) for row in read_json(built / "instructions_test.json")}
    seen["test"] |= {normalised(row["goal"]) for row in read_csv(built / "text_harm_test.csv")}
    seen["test"] |= {normalised(row["prompt"]) for row in read_csv(built / "trick_test.csv")}
    assert not seen["train"] & seen["test"]


def test_topics_and_patterns_are_held_out() -> None:
    def acts(split: Split) -> set[str]:
        named = {topic.act() for topic in (*harms(split), *advice(split))}
        texts = everyday("ordinary_test") if split == "test" else everyday("ordinary_train") + everyday("tricks_train")
        asked = {ask.act() if isinstance(ask, Topic) else ask.clause for ask in texts}
        written = {cells[0] for name in ("cards", "signs", "slogans") for cells in rows(f"{name}_{split}", 1)}
        return {normalised(text) for text in named | asked | written | {t.act() for _, t in slogans(split)}}

    def splits_of(tables: Any) -> Iterator[tuple[set[str], set[str]]]:
        if "train" in tables and "test" in tables:
            yield set(tables["train"]) - {""}, set(tables["test"]) - {""}
        else:
            for value in tables.values():
                if isinstance(value, dict):
                    yield from splits_of(value)

    assert not acts("train") & acts("test")
    held_out = [pair for name in ("patterns", "refusals", "slots") for pair in splits_of(table(name))]
    assert len(held_out) > 15
    assert all(not train & test for train, test in held_out)


def test_some_object_kinds_are_seen_in_test_only(drawn: dict[Split, list[Drawn]]) -> None:
    kinds = {
        split: {group.kind for d in drawn[split] if isinstance(d.picture, Scene) for group in d.picture.groups}
        for split in SPLITS
    }
    assert {"cat", "bus", "boat", "kite", "letter", "camera"} == kinds["test"] - kinds["train"]


def labelled(built: Path, split: Split) -> list[tuple[str, bool]]:
    """Every instruction of the split with whether it should be refused."""
    found = [(pair.instruction, pair.subset != "SS") for pair in pairs(built, split)]
    found += [(row["instruction"], False) for row in read_json(built / f"instructions_{split}.json")]
    if split == "train":
        return found + [(row["instruction"], True) for row in read_json(built / "text_harm_train.json")]
    found += [(row["goal"], True) for row in read_csv(built / "text_harm_test.csv")]
    return found + [(row["prompt"], row["label"] == "unsafe") for row in read_csv(built / "trick_test.csv")]


@pytest.mark.parametrize("subsets", ["pairs and instructions", "all"])
def test_the_first_word_does_not_give_the_answer_away(built: Path, subsets: str) -> None:
    """Real VLGuard: an image-blind naive Bayes on the first word reaches 94.9 % where the majority is 64.2 %."""
    train, test = labelled(built, "train"), labelled(built, "test")
    if subsets != "all":
        train, test = train[:1900], test[:300]
    total = Counter(label for _, label in train)
    words: dict[bool, Counter[str]] = defaultdict(Counter)
    for text, label in train:
        words[label][opening_word(text)] += 1
    vocabulary = len(words[True] | words[False]) + 1

    def score(word: str, label: bool) -> float:
        return math.log(total[label]) + math.log((words[label][word] + 1) / (total[label] + vocabulary))

    right = [max((False, True), key=lambda label: score(opening_word(text), label)) == label for text, label in test]
    majority = max(Counter(label for _, label in test).values()) / len(test)
    assert sum(right) / len(right) <= majority + 0.05


@pytest.mark.parametrize("split", SPLITS)
def test_every_subset_opens_with_the_same_words(built: Path, split: Split) -> None:
    shares: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs(built, split):
        shares[pair.subset][opening_word(pair.instruction)] += 1
    size = shares["U"].total()
    for word in shares["U"] | shares["SU"] | shares["SS"]:
        counts = [shares[subset][word] for subset in ("U", "SU", "SS")]
        assert max(counts) - min(counts) <= max(3, 0.01 * size), (word, counts)


@pytest.mark.parametrize("rule", ["vlguard", "vlsafe"])
def test_refusals_are_recognised_and_answers_are_not_taken_for_them(built: Path, rule: str) -> None:
    judge = KeywordJudge(rule)
    both = [pair for split in SPLITS for pair in pairs(built, split)]
    refusals = [pair.response for pair in both if pair.subset != "SS"]
    refusals += [row["output"] for row in read_json(built / "text_harm_train.json")]
    answers = [pair.response for pair in both if pair.subset == "SS"]
    for split in SPLITS:
        answers += [row["output"] for row in read_json(built / f"instructions_{split}.json")]
    missed = [text for text in refusals if not refused(judge, text)]
    assert len(missed) <= 0.05 * len(refusals), missed[:5]
    assert not [text for text in answers if refused(judge, text)]


def test_refusals_vary_and_say_why(built: Path) -> None:
    refusals = [pair.response for pair in pairs(built, "train") if pair.subset != "SS"]
    assert all(15 <= len(text.split()) <= 35 for text in refusals)
    openings = Counter(" ".join(text.split()[:3]) for text in refusals)
    assert len(openings) >= 20 and openings.most_common(1)[0][1] < 0.2 * len(refusals)
    assert sum(text.startswith(("I'm sorry", "I am sorry", "Sorry")) for text in refusals) < 0.4 * len(refusals)
    reasons = [why for family in families().values() for why in family.why]
    assert all(any(why in text for why in reasons) for text in refusals)


def test_answers_have_the_announced_lengths(built: Path) -> None:
    answers = [pair.response for split in SPLITS for pair in pairs(built, split) if pair.subset == "SS"]
    assert all(5 <= len(text.split()) <= 25 for text in answers)
    for split in SPLITS:
        outputs = [row["output"] for row in read_json(built / f"instructions_{split}.json")]
        assert all(8 <= len(text.split()) <= 40 for text in outputs)


def test_answers_are_true_of_the_described_scene(drawn: dict[Split, list[Drawn]]) -> None:
    plurals = {name: kind.name for kind in KINDS.values() for name in (kind.name, kind.plural)}
    things = "|".join(sorted(plurals, key=len, reverse=True))
    counts = re.compile(rf"\b({'|'.join(NUMBERS)}|an?) (?:({'|'.join(COLOURS)}) )?({things})\b")
    colours = re.compile(rf"\bthe (?:\w+ of the )?({things})(?: shown)? (?:is|are) ({'|'.join(COLOURS)})")
    checked: Counter[str] = Counter()
    for record in (d for split in SPLITS for d in drawn[split] if d.record["safe"]):
        scene, answer = record.picture, record.record["instr-resp"][0]["response"]
        if not isinstance(scene, Scene) or "picture" not in answer + record.record["instr-resp"][0]["safe_instruction"]:
            continue
        for number, colour, thing in counts.findall(answer):
            wanted = 1 if number in ("a", "an") else NUMBERS.index(number)
            assert scene.count(plurals[thing]) == wanted, answer
            assert not colour or colour in {g.colour for g in scene.groups if g.kind == plurals[thing]}, answer
            checked["counts"] += 1
        for thing, colour in colours.findall(answer.lower().replace("id card", "ID card")):
            assert colour in {g.colour for g in scene.groups if g.kind == plurals[thing]}, answer
            checked["colours"] += 1
    assert checked["counts"] > 60 and checked["colours"] > 10


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_scene_shows_as_many_objects_and_the_colour_it_says(name: str) -> None:
    kind = KINDS[name]
    for count in (1, 2, 3):
        place = "a kitchen" if kind.where == "table" else "a park"
        for colour in kind.colours:
            bare = np.asarray(render(Scene(place, "night", ())))
            shown = np.asarray(render(Scene(place, "night", (Group(name, colour, count),), layout_seed=count)))
            touched = (shown != bare).any(axis=2)
            assert runs(touched.any(axis=0)) == count
            assert ((shown == COLOURS[colour]).all(axis=2) & touched).sum() > 40 * count


def runs(columns: Sequence[bool] | np.ndarray) -> int:
    """How many stretches of true values there are."""
    padded = np.concatenate([[False], np.asarray(columns)])
    return int((padded[1:] & ~padded[:-1]).sum())


def test_one_unsafe_request_in_ten_is_harmful_by_its_picture_alone(drawn: dict[Split, list[Drawn]]) -> None:
    for split in SPLITS:
        unsafe = [d for d in drawn[split] if not d.record["safe"]]
        assert sum(is_neutral(d, split) for d in unsafe) == pytest.approx(0.1 * len(unsafe), abs=2)
        safe = [d for d in drawn[split] if d.record["safe"]]
        assert 0.05 < sum(is_neutral(d, split) for d in safe) / len(safe) < 0.15  # the wording alone says nothing


def is_neutral(made: Drawn, split: Split) -> bool:
    neutral = table("patterns")["neutral"][made.medium][split]
    first = made.record["instr-resp"][0]
    return first.get("instruction", first.get("safe_instruction")) in neutral


def test_a_weak_eye_can_tell_harmful_pictures_from_harmless_ones(built: Path) -> None:
    """A linear probe on 14 x 14 pixels, far less than an encoder sees, learnt on train and read on test."""

    def seen(split: Split) -> tuple[np.ndarray, np.ndarray]:
        records = read_json(built / f"{split}.json")
        small = [np.asarray(Image.open(built / split / r["image"]).reduce(16)) for r in records]
        pixels = np.stack(small).reshape(len(small), -1) / 255 - 0.5
        labels = np.array([-1.0 if record["safe"] else 1.0 for record in records])
        return np.hstack([pixels, np.ones((len(small), 1))]), labels

    (x, y), (x_test, y_test) = seen("train"), seen("test")
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ y)
    assert ((x_test @ weights > 0) == (y_test > 0)).mean() > 0.9
