"""The verbs ``judge`` and ``score``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import REFUSAL, FakeResponder, Toy

from vlsafe.answering import Decoding
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.evaluation.commands import judge_main, score_main
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.stages import evaluate


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_judge_keeps_fields_and_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(
        tmp_path / "r.jsonl",
        {"id": "a", "question": "q", "text": "I cannot help with that.", "human": 2},
        {"id": "a", "question": "q", "text": "Sure: stir it."},
        {"id": 7, "question": "q", "text": "", "label": "old"},
    )
    assert judge_main([str(source), "--judge", "keyword:vlsafe", "--out", str(tmp_path / "v.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [(row["id"], row["label"], row["judge"]) for row in rows] == [
        ("a", "refuse", "keyword:vlsafe"),
        ("a", "comply", "keyword:vlsafe"),
        (7, "invalid", "keyword:vlsafe"),
    ]
    assert rows[0]["human"] == 2
    assert "refuse" in capsys.readouterr().out


def test_judge_reports_every_bad_row_by_its_line(tmp_path: Path) -> None:
    source = write(tmp_path / "r.jsonl", {"id": "a", "question": "q"}, {"id": "b", "question": 1, "text": "t"}, [])
    source.write_text(source.read_text() + '{"id": "c", "que')
    with pytest.raises(DataError) as caught:
        judge_main([str(source), "--out", str(tmp_path / "v.jsonl")])
    words = str(caught.value)
    assert "line 1: text missing or not text" in words
    assert "line 2: question missing or not text" in words
    assert "line 3: not an object" in words
    assert "line 4: not JSON" in words
    assert not (tmp_path / "v.jsonl").exists()


def test_judge_keeps_failed_answers_as_errors_and_fails(tmp_path: Path) -> None:
    source = write(tmp_path / "r.jsonl", {"id": "a", "question": "q", "text": "I cannot", "error": "timed out"})
    with pytest.raises(VlsafeError, match=r"1 of 1 responses are errors.*timed out"):
        judge_main([str(source), "--out", str(tmp_path / "v.jsonl")])
    assert json.loads((tmp_path / "v.jsonl").read_text())["label"] == "error"


def test_judge_refuses_wrong_requests(tmp_path: Path) -> None:
    source = write(tmp_path / "r.jsonl", {"id": "a", "question": "q", "text": "t"})
    with pytest.raises(ConfigError, match="--out is the file that is read"):
        judge_main([str(source), "--out", str(source)])
    with pytest.raises(ConfigError, match="unknown judge 'keyword:none'"):
        judge_main([str(source), "--judge", "keyword:none", "--out", str(tmp_path / "v")])
    with pytest.raises(DataError, match="no such file"):
        judge_main([str(tmp_path / "none"), "--out", str(tmp_path / "v")])
    with pytest.raises(DataError, match="no rows"):
        judge_main([str(write(tmp_path / "empty")), "--out", str(tmp_path / "v")])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    responder = FakeResponder({f"toy/harm/{n}": REFUSAL for n in range(3)})
    evaluate([Toy(tmp_path / "p")], responder, judge_named("keyword:vlsafe"), Decoding(), tmp_path / "out")
    return tmp_path / "out"


def test_score_from_files_alone_gives_the_same_metrics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = (folder / "metrics.json").read_text()
    (folder / "metrics.json").unlink()
    assert score_main([str(folder)]) == 0
    assert (folder / "metrics.json").read_text() == written
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "judge: keyword:vlsafe"
    assert table[3].split() == ["toy[harm]/asr", "25.00", "[4.6,", "69.9]", "4", "0"]


def test_verdicts_made_by_the_verb_can_be_scored(folder: Path) -> None:
    out = folder / "verdicts.keyword:gcg.jsonl"
    judge_main([str(folder / "responses.jsonl"), "--judge", "keyword:gcg", "--out", str(out)])
    assert score_main([str(folder), "--judge", "keyword:gcg"]) == 0
    assert json.loads((folder / "metrics.json").read_text())["judge"] == "keyword:gcg"


def test_score_without_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert score_main([str(folder)]) == 0
    (folder / "verdicts.other.jsonl").touch()
    with pytest.raises(ConfigError, match="verdicts of keyword:vlsafe, other; choose one with --judge"):
        score_main([str(folder)])
    responses = folder / "responses.jsonl"
    first = json.loads(responses.read_text().splitlines()[0])
    responses.write_text(responses.read_text() + json.dumps(first | {"key": "another"}) + "\n")
    with pytest.raises(DataError, match="has responses of several models or settings"):
        score_main([str(folder), "--judge", "keyword:vlsafe"])


def test_score_of_an_unimportable_benchmark_says_so(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["benchmarks"]["toy"] = "nowhere:Toy"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="scored by nowhere:Toy, which cannot be imported"):
        score_main([str(folder)])
