"""What an audit finds in planted sets, and on the published files the figures known of them."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from audit.sets import rows, safe, unsafe, written

from vlsafe.__main__ import main
from vlsafe.audit.auditing import audit
from vlsafe.audit.blind import naive_bayes
from vlsafe.audit.exchanges import original_id
from vlsafe.audit.findings import KINDS
from vlsafe.audit.texts import opening
from vlsafe.errors import ConfigError, DataError

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "vlguard"


def found(report: dict[str, Any], code: str, **fields: str) -> list[dict[str, Any]]:
    return [
        each
        for each in report["findings"]
        if each["code"] == code and all(each[key] == value for key, value in fields.items())
    ]


def only(report: dict[str, Any], code: str, **fields: str) -> dict[str, Any]:
    (finding,) = found(report, code, **fields)
    return finding


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    if not REAL.is_dir():
        pytest.skip("VLGuard's files are not beside this checkout")
    begin = time.process_time()  # another process on the machine must not fail this
    report = audit([f"vlguard:{REAL}#train", f"vlguard:{REAL}#test"])
    assert time.process_time() - begin < 30
    return report


def test_detectors_on_the_published_references(real: dict[str, Any]) -> None:
    papers = {"detector": "keyword:vlguard"}
    test = only(real, "unrecognised_refusal", source="test", subset="unsafe", **papers)
    assert (test["count"], test["total"], len(test["ids"]), test["severity"]) == (122, 442, 122, "serious")
    train = only(real, "unrecognised_refusal", source="train", subset="safe_unsafe", **papers)
    assert (train["count"], train["total"]) == (166, 977)
    assert only(real, "refusing_reference", source="test", subset="safe_safe", **papers)["count"] == 4
    shares = {
        (split, subset): round(real["detectors"][split][subset]["keyword:vlguard"]["share"], 1)
        for split in ("train", "test")
        for subset in ("unsafe", "safe_unsafe", "safe_safe")
    }
    assert list(shares.values()) == [100, 83.0, 1.7, 72.4, 98.6, 0.7]


def test_openings_of_the_published_refusals(real: dict[str, Any]) -> None:
    alike = only(real, "uniform_opening", source="train", subset="unsafe")
    assert (alike["count"], alike["total"], len(alike["ids"])) == (1023, 1023, 1023)
    assert real["openings"]["train"]["unsafe"]["top"] == [{"opening": "i'm sorry", "count": 1023}]
    assert real["openings"]["train"]["unsafe"]["entropy_bits"] == 0
    assert real["openings"]["test"]["unsafe"]["entropy_bits"] > 2


def test_first_words_of_the_published_requests(real: dict[str, Any]) -> None:
    shortcut = only(real, "first_word_shortcut", source="test")
    assert (shortcut["count"], shortcut["total"], shortcut["severity"]) == (1479, 1558, "serious")
    words = {row["word"]: (row["answer"], row["refuse"]) for row in real["first_words"]["train"]}
    assert (words["what"], words["can"], words["share"]) == ((869, 61), (103, 862), (0, 195))
    first, bag = real["blind"]
    assert round(first["majority"], 1) == 64.2 and 93.7 < first["low"] < first["accuracy"] < first["high"] < 96
    of = {subset: round(score["accuracy"], 1) for subset, score in first["subsets"].items()}
    assert of == {"safe_safe": 91.9, "safe_unsafe": 97.0, "unsafe": 96.2}
    assert round(bag["accuracy"], 1) == 95.9


def test_copies_and_leaks_of_the_published_files(real: dict[str, Any]) -> None:
    leaked = only(real, "leaked_picture_name", source="test")
    assert (leaked["count"], leaked["total"], len(leaked["ids"])) == (8, 1000, 8)
    assert only(real, "leaked_other_label")["count"] == 1
    assert only(real, "duplicate_id", source="train")["ids"] == ["Ads_303871#2"]
    assert only(real, "duplicate_picture_name", source="train")["count"] == 1
    assert not found(real, "duplicate_id", source="test")


def test_gaps_of_the_published_files(real: dict[str, Any]) -> None:
    for source in ("test", "gpt4_safe_safes.json"):
        empty = only(real, "empty_reference", source=source)
        assert (empty["count"], empty["total"]) == (17, 558)
    assert only(real, "missing_picture", source="train")["count"] == 1999  # these files come without pictures
    assert "MIT as reported" in only(real, "licence", source="train")["what"]
    assert "research use" in only(real, "gated", source="train")["what"]
    assert only(real, "no_category", source="train")["count"] == 977
    assert real["counts"]["train"]["subset"] == {"unsafe": 1023, "safe_safe": 977, "safe_unsafe": 977}
    assert real["counts"]["test"]["folder"]["HOD"] == 200
    means = {subset: round(of["response"]["mean"], 1) for subset, of in real["lengths"]["train"].items()}
    assert means == {"unsafe": 86.4, "safe_safe": 37.4, "safe_unsafe": 49.2}


def test_planted_copies_and_leaks(tmp_path: Path) -> None:
    train = [*rows(4), unsafe(0), safe(9, image="signs/train-u1.png")]
    test = [*rows(2, "test"), unsafe(7, "test", image="scenes/train-s0.png")]
    report = audit([written(tmp_path, train), written(tmp_path, test, "test")])
    assert only(report, "duplicate_id")["ids"] == ["train-u0#2"]
    names = only(report, "duplicate_picture_name")
    assert names["matches"] == {"train-u0#2": ["train-u0"], "train-s9": ["train-u1"]}
    assert only(report, "leaked_picture_name")["matches"] == {"test-u7": ["train-s0"]}
    assert only(report, "leaked_other_label")["ids"] == ["test-u7"]
    assert only(report, "leaked_instruction")["count"] == 6
    assert not found(report, "leaked_id")


def test_a_clean_pair_of_sets_has_no_leak(tmp_path: Path) -> None:
    def numbered(start: int, split: str) -> str:
        return written(tmp_path, [make(start + n, split) for n in (1, 2, 3) for make in (unsafe, safe)], split)

    report = audit([numbered(0, "train"), numbered(10, "test")])
    codes = {finding["code"] for finding in report["findings"]}
    assert not {code for code in codes if code.startswith(("leaked", "duplicate"))}


def test_empty_and_refusing_references_on_the_helpful_side(tmp_path: Path) -> None:
    test = rows(3, "test")
    test[1]["instr-resp"][0]["response"] = " "
    test[3]["instr-resp"][0]["response"] = "I'm sorry, I cannot help with that."
    report = audit([written(tmp_path, test, "test")])
    assert only(report, "empty_reference")["ids"] == ["test-s0/safe_safe"]
    assert only(report, "refusing_reference", detector="keyword:vlsafe")["ids"] == ["test-s1/safe_safe"]


def test_one_source_is_cross_validated_with_its_pictures_kept_whole(tmp_path: Path) -> None:
    report = audit([written(tmp_path, rows(40))])
    first, _ = report["blind"]
    assert (first["folds"], first["correct"], first["n"]) == (5, 120, 120)
    assert only(report, "first_word_shortcut")["severity"] == "serious"
    assert {row["word"] for row in report["first_words"]["train"]} == {"share", "what", "can"}
    assert only(report, "telling_first_word")["count"] == 120


def test_a_source_without_labels_says_that_they_are_guessed(tmp_path: Path) -> None:
    records = [
        {"instruction": f"Say {n}", "output": "I cannot help with that." if n % 2 else "Gladly."} for n in range(20)
    ]
    (tmp_path / "set.json").write_text(json.dumps(records), encoding="utf-8")
    report = audit([f"alpaca:{tmp_path / 'set.json'}"])
    assert only(report, "guessed_labels")["count"] == 20
    assert report["counts"]["set"]["side"] == {"answer": 10, "refuse": 10}
    assert report["pictures"]["set"] == {"pictures": 0, "whole": 0, "missing": 0, "broken": 0}
    assert only(report, "first_word_shortcut")["severity"] == "note"  # all open alike


def test_lengths_in_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # one character, one token
    PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="[UNK]").save_pretrained(tmp_path / "tokens")
    spec = written(tmp_path, [unsafe(1), safe(1)])
    report = audit([spec], str(tmp_path / "tokens"))
    assert report["lengths"]["train"]["safe_safe"]["response"]["max"] == len("It is a tree.")
    assert audit([spec])["lengths"]["train"]["safe_safe"]["response"]["max"] == 4
    with pytest.raises(ConfigError, match="--tokenizer"):
        audit([spec], str(tmp_path / "nothing"))


def test_the_verb_writes_both_files_and_an_escaped_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = unsafe(1, id="<script>alert(1)</script>")
    spec = written(tmp_path, [evil, evil, *rows(5)])
    assert main(["audit", spec, "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert only(report, "duplicate_id")["ids"] == ["<script>alert(1)</script>#2"]
    for finding in report["findings"]:
        assert finding["code"] in KINDS and finding["why"] and finding["severity"] in ("serious", "warning", "note")
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert "script" not in tags.names and not tags.loaded
    assert "Share this" not in page  # what may be harmful stays in the data
    assert "duplicate_id" in capsys.readouterr().out
    assert main(["audit", spec, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "audit.json").read_bytes() == (tmp_path / "out" / "audit.json").read_bytes()


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.loaded += [name for name, _ in attrs if name in ("src", "href")]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    spec = written(tmp_path, rows(2))
    with pytest.raises(ConfigError, match="named twice"):
        audit([spec, spec])
    with pytest.raises(ConfigError, match="kind of source"):
        audit([f"nothing:{tmp_path}"])
    with pytest.raises(DataError, match="'safe' is missing"):
        audit([written(tmp_path / "bad", [{"id": "x", "image": "a.png", "instr-resp": []}])])


def test_small_rules() -> None:
    assert original_id("x#2/safe_safe") == "x/safe_safe"
    assert original_id("x/safe_safe") == "x/safe_safe"
    assert opening("I’m  sorry, but no") == opening("I'm sorry.") == "i'm sorry"
    # by hand: refuse has "can" twice, answer has "what" twice; a word never seen leaves it to the prior, a tie
    learnt = naive_bayes(
        [["what"], ["what"], ["can"], ["can"]], [False, False, True, True], [["can"], ["what"], ["new"]]
    )
    assert learnt.tolist() == [True, False, False]
