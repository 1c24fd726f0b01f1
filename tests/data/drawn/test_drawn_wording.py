"""The drawn safety set: the first word gives nothing away, refusals say why, answers are answers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from drawn_files import SPLITS, pairs, read_csv, read_json

from vlsafe.data.drawn.choosing import opening_word
from vlsafe.data.drawn.records import Drawn
from vlsafe.data.drawn.tables import Split, families, table
from vlsafe.evaluation.judges.keyword import KeywordJudge


def refused(judge: KeywordJudge, text: str) -> bool:
    return judge.label_text(text)[0] == "refuse"


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
    assert sum(len(text.split()) for text in refusals) < 25 * len(refusals)
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


def test_some_unsafe_requests_are_harmful_by_their_picture_alone(drawn: dict[Split, list[Drawn]]) -> None:
    shares: dict[Split, float] = {"train": 0.2, "test": 0.1}
    for split, share in shares.items():
        unsafe = [d for d in drawn[split] if not d.record["safe"]]
        assert sum(is_neutral(d, split) for d in unsafe) == pytest.approx(share * len(unsafe), abs=2)
        safe = [d for d in drawn[split] if d.record["safe"]]
        assert abs(sum(is_neutral(d, split) for d in safe) / len(safe) - share) < 0.05  # the wording alone says nothing


def is_neutral(made: Drawn, split: Split) -> bool:
    neutral = table("patterns")["neutral"][made.medium][split]
    first = made.record["instr-resp"][0]
    return first.get("instruction", first.get("safe_instruction")) in neutral
