"""The drawn safety set: its formats, its counts, and that nothing leaks from train to test."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drawn_files import SPLITS, normalised, pairs, read_csv, read_json

from vlsafe.data.drawn import build
from vlsafe.data.drawn.records import SplitMaker
from vlsafe.data.drawn.tables import Split, Topic, advice, everyday, families, harms, rows, slogans, table


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
    assert counts == {"train": {"U": 500, "SU": 500, "SS": 500}, "test": {"U": 80, "SU": 80, "SS": 80}}
    readme = (built / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in readme
    listed = dict(re.findall(r"\| `(.+?)` \| .+? \| (\d+) \|", readme))
    assert {name: int(count) for name, count in listed.items()} == {
        "train.json": 1000,
        "test.json": 160,
        "instructions_train.json": 1000,
        "instructions_test.json": 60,
        "text_harm_train.json": 300,
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


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(built: Path, tmp_path: Path) -> None:
    def digest(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    build(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(built)
    one, other = (SplitMaker(random.Random(f"{seed}/test"), "test").records() for seed in (0, 1))
    assert one != other


def test_no_id_picture_or_wording_is_shared(built: Path) -> None:
    ids = [record["id"] for split in SPLITS for record in read_json(built / f"{split}.json")]
    assert len(set(ids)) == len(ids) == 1160
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in built.rglob("*.png")]
    assert len(set(hashes)) == len(hashes) == 1160
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


FUNCTION_WORDS = """
a an the of in on at to for with by from or and not is was are be how do does did i what which who
why when where can you me he she his her my your their it its that this there as about no one"""
STOP = frozenset(FUNCTION_WORDS.split())


def content(text: str) -> frozenset[str]:
    """The words that carry a request's topic, without endings: ``Why was X executed?`` -> {x, execut}."""
    words = re.findall(r"[a-z]+", re.sub(r"\b(\w+)/\w+\b", r"\1", text.lower()))
    return frozenset(re.sub(r"(ed|ing|s)$", "", word) for word in words if word not in STOP)


def topics(split: Split) -> set[frozenset[str]]:
    """Every topic written for the split, as its content words."""
    found = {content(phrase) for _, phrase in rows(f"harms_{split}", 2)}
    names = ["ordinary_test", "advice_test"] if split == "test" else ["ordinary_train", "advice_train", "tricks_train"]
    found |= {content(ask.split(" | ")[-1]) for name in names for ask, _ in rows(name, 2, " = ")}
    return found | ({content(prompt) for *_, prompt in rows("tricks_test", 4)} if split == "test" else set())


def test_no_topic_of_the_test_is_a_topic_of_training_in_other_words() -> None:
    assert content("How do I strip old varnish from a chair?") == content("strip/stripping varnish from an old chair")
    test = topics("test")
    close = [(a, b) for a in topics("train") for b in test if len(a & b) > 0.5 * len(a | b)]
    assert not close
