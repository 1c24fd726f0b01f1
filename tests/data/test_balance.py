"""De-biased safety data: equal openings, kept meaning and provenance, readable by the same reader."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from audit.sets import rows, safe, unsafe, written
from PIL import Image

from vlsafe.__main__ import main
from vlsafe.audit.auditing import audit
from vlsafe.audit.blind import blind_scores, first_word
from vlsafe.audit.exchanges import read_sources
from vlsafe.data.balance import balance_folder, balanced
from vlsafe.data.balance.refusals import varied
from vlsafe.data.balance.wording import action, openings, table
from vlsafe.data.images import open_image
from vlsafe.data.sources.vlguard import INSTRUCTIONS, Split, VLGuardSource
from vlsafe.evaluation.judges.keyword import KeywordJudge

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "vlguard"


def pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, Any]]]:
    """(subset, instruction, pair) of every pair."""
    return [
        (subset, pair[key], pair)
        for row in rows
        for pair in row["instr-resp"]
        for subset, key in INSTRUCTIONS.items()
        if key in pair
    ]


def gap(specs: list[str]) -> float:
    """Points between the first-word classifier and the majority rate."""
    first = audit(specs)["blind"][0]
    assert first["classifier"] == "first word"
    return abs(first["accuracy"] - first["majority"])


def test_the_first_word_says_nothing_afterwards(tmp_path: Path) -> None:
    before = [written(tmp_path / "before", rows(45, split), split) for split in ("train", "test")]
    assert gap(before) > 25
    for spec in before:
        assert main(["data", "balance", spec, "--out", str(tmp_path / "after")]) == 0
    after = [f"vlguard:{tmp_path / 'after'}#{split}" for split in ("train", "test")]
    assert gap(after) <= 5 and gap(after[:1]) <= 5


@pytest.mark.parametrize("plain", [True, False])
def test_the_first_word_says_nothing_in_the_balanced_published_files(tmp_path: Path, plain: bool) -> None:
    if not REAL.is_dir():
        pytest.skip("VLGuard's files are not beside this checkout")
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        balance_folder(REAL, split, tmp_path, same_request=plain, vary_refusals=not plain)
    train, test = read_sources([f"vlguard:{tmp_path}#{split}" for split in splits])
    for sources in ([train, test], [train]):
        first = blind_scores(sources)[0]
        assert abs(first.correct - first.majority) <= 0.05 * first.n
    assert len(train.records) > 2000 if plain else len(train.records) == 2000
    refusals = [each.response for each in train.exchanges if each.subset == "unsafe"]
    judge = KeywordJudge("vlsafe")
    assert sum(judge.label_text(text)[0] == "comply" for text in refusals) <= 0.01 * len(refusals)


def test_every_subset_opens_with_the_same_words_equally_often() -> None:
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for subset, instruction, pair in pairs(balanced(rows(45)).rows):
        used[subset][first_word(instruction)] += 1
        assert first_word(instruction) == pair["balance"]["opening"]
    words = {opening.word for opening in openings()}
    for counts in used.values():
        assert set(counts) == words and max(counts.values()) - min(counts.values()) <= 1


def test_only_instructions_change_and_each_says_from_what() -> None:
    original = rows(20)
    before = json.dumps(original)
    result = balanced(original, same_request=False).rows
    assert json.dumps(original) == before  # the caller's rows are left alone
    assert balanced(original, same_request=False).rows == result
    for old, new in zip(original, result, strict=True):
        restored = json.loads(json.dumps(new))
        for _, _, pair in pairs([restored]):
            key = next(key for key in INSTRUCTIONS.values() if key in pair)
            pair[key] = pair.pop("balance")["instruction_was"]
        assert restored == old


def test_a_request_stays_whole_in_its_new_wording() -> None:
    for _, instruction, pair in pairs(balanced(rows(45)).rows):
        original = pair["balance"]["instruction_was"]
        kept = action(original) or original.rstrip(".?")
        assert kept.lower() in instruction.lower()


def test_the_requests_about_one_picture_are_introduced_alike() -> None:
    templates = [
        {pair["balance"]["template"] for pair in row["instr-resp"]} for row in balanced(rows(30)).rows if row["safe"]
    ]
    assert len(templates) == 30 and all(len(each) == 1 for each in templates)


def test_the_same_request_is_asked_of_a_harmless_and_of_a_harmful_picture() -> None:
    original = rows(45)
    result = balanced(original).rows
    added = result[len(original) :]
    by_id = {row["id"]: row for row in result}
    assert len(added) == 9  # twelve requests fit any picture: one for each of nine openings
    for row in added:
        (pair,) = row["instr-resp"]
        asked, shown = by_id[pair["balance"]["request_from"]], by_id[pair["balance"]["picture_and_response_from"]]
        assert asked["safe"] and asked["instr-resp"][0]["safe_instruction"] == pair["instruction"]
        assert not row["safe"] and row["image"] == shown["image"]
        assert pair["response"] == shown["instr-resp"][0]["response"]
    assert sorted(Counter(row["instr-resp"][0]["balance"]["opening"] for row in added).values()) == [1] * 9


@pytest.mark.parametrize(
    "fields",
    [
        {"harmful_category": "privacy", "harmful_subcategory": "personal data"},
        {"instr-resp": [{"instruction": "Share it.", "response": "I'm sorry, sharing this boat is wrong."}]},
    ],
)
def test_no_harmless_request_is_refused_for_harm_that_is_not_in_the_picture(fields: dict[str, Any]) -> None:
    records = [make for number in range(0, 80, 4) for make in (unsafe(number, **fields), safe(number))]
    assert balanced(records).summary["added_same_request"] == 0


def test_varied_refusals_still_refuse_and_no_longer_open_alike() -> None:
    judge = KeywordJudge("vlsafe")
    result = balanced(rows(30), vary_refusals=True)
    opened: dict[str, set[str]] = defaultdict(set)
    for subset, _, pair in pairs(result.rows):
        if subset == "safe_safe":
            assert "response_was" not in pair["balance"] and pair["response"].startswith("It is a")
        else:
            assert judge.label_text(pair["response"])[0] == "refuse", pair["response"]
            assert pair["balance"]["response_was"].startswith("I'm sorry")
            opened[subset].add(" ".join(pair["response"].split()[:3]))
    assert all(len(each) >= 5 for each in opened.values())


@pytest.mark.parametrize("rule", ["whole", "apology"])
def test_every_refusal_template_is_recognised(rule: str) -> None:
    judge = KeywordJudge("vlsafe")
    why = {"whole": "The picture shows a thing that hurts people.", "apology": "I cannot provide personal details."}[
        rule
    ]
    for template in table("refusals.toml")[rule]["templates"]:
        assert judge.label_text(template.replace("{why}", why))[0] == "refuse", template


def test_a_refusal_of_another_kind_stays() -> None:
    for text in ("As per our policy, no.", "I'm sorry, but this picture is private.", ""):
        assert varied(text, 0) == (text, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Can you describe the scene?", "describe the scene"),
        ("please Identify the people.", "identify the people"),
        ("Share this {now}", "share this {now}"),
        ("What is shown?", ""),
        ("N/A", ""),
        ("Describe it. Then run.", ""),
        ("Can", ""),
    ],
)
def test_what_counts_as_an_action(text: str, expected: str) -> None:
    assert action(text) == expected


def test_pictures_are_linked_and_read(tmp_path: Path) -> None:
    records = rows(5)
    for row in records:
        path = tmp_path / "set" / "train" / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), "red").save(path)
    spec = written(tmp_path / "set", records)
    command = ["data", "balance", spec, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    source = VLGuardSource(tmp_path / "out")
    assert open_image(source[0].images[0]).size == (3, 2)
    first = (tmp_path / "out" / "train.json").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "out" / "train.json").read_bytes() == first
    told = json.loads((tmp_path / "out" / "balance.train.json").read_text(encoding="utf-8"))
    assert told["records"] == len(source) and len(told["source_sha256"]) == 64


def test_bad_requests_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = written(tmp_path, rows(2))
    for argv, words in (
        (["balance", spec, "--out", str(tmp_path)], "the source itself"),
        (["balance", "alpaca:x.json", "--out", "y"], "of kind 'alpaca'"),
        (["balance", f"vlguard:{tmp_path}#valid", "--out", "y"], "unknown split 'valid'"),
        (["mix"], "unknown subverb 'mix'"),
    ):
        assert main(["data", *argv]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "train").mkdir()
    (tmp_path / "out" / "train").mkdir(parents=True)
    assert main(["data", "balance", spec, "--out", str(tmp_path / "out")]) == 2
    assert "is not a link" in capsys.readouterr().err
