"""Logs of other tools: ours go out and come back as they were, theirs are judged and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.fakes import REFUSAL, FakeResponder, Toy
from vlsafe.answering import Answer, Decoding
from vlsafe.comparison.runs import read_evaluated
from vlsafe.comparison.table import comparison
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.evaluation.folder import read_folder
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.stages import evaluate
from vlsafe.exchange import EXPORTS, IMPORTS, LOG
from vlsafe.exchange.command import main

JUDGE = judge_named("keyword:vlsafe")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {"toy/harm/1": REFUSAL, "toy/benign/2": "two\nlines, “quoted”", "toy/utility/0": ""}
    out = tmp_path / "out"
    evaluate([Toy(tmp_path / "p")], FakeResponder(texts), JUDGE, Decoding(), out)
    return out


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())["metrics"]


def test_lmms_eval_samples_come_back_as_the_same_evaluation(folder: Path, tmp_path: Path) -> None:
    assert main(["export", str(folder), "--to", "lmms-eval", "--out", str(tmp_path / "logs")]) == 0
    files = sorted((tmp_path / "logs").iterdir())
    assert [file.name for file in files] == [f"samples_toy_{side}.jsonl" for side in ("benign", "harm", "utility")]
    row = lines(files[0])[2]
    text = "two\nlines, “quoted”"
    assert (row["doc_id"], row["filtered_resps"], row["resps"]) == (2, [text], [[text]])
    assert row["arguments"][0] == row["input"] == "benign question 2?"
    assert row["vlsafe"]["label"] == "comply"
    back = tmp_path / "back"
    specs = [f"utility:any={file}" for file in files]  # a log of ours knows its own sides and names
    assert main(["import", *specs, "--out", str(back)]) == 0
    assert metrics(back) == metrics(folder)
    told = comparison(read_evaluated([folder, back]))
    assert told["unpaired"] == {}  # ids, questions and pictures are the same
    assert all(change["value"] == 0 for metric in told["metrics"].values() for change in metric["differences"].values())


def test_a_log_of_lmms_eval_itself_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["<image>\nDo it.", {"until": []}, 3, "jbb", "test"]
    older = {"doc_id": 3, "doc": {"goal": "g"}, "target": "t", "arguments": asked}
    newer = {"doc_id": 4, "target": 1, "input": "Do that.", "success": 1.0}
    harm, benign = tmp_path / "harm.jsonl", tmp_path / "benign.jsonl"
    rows = [older | {"resps": [[REFUSAL]], "filtered_resps": [REFUSAL]}, newer | {"resps": [["Sure."]]}]
    harm.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benign.write_text(json.dumps(newer | {"filtered_resps": [["Here."]]}) + "\n")
    out = tmp_path / "theirs"
    assert main(["import", f"harm:jbb={harm}", f"benign:mossbench={benign}", "--out", str(out)]) == 0
    assert "jbb/asr" in capsys.readouterr().out
    kept = read_folder(out)
    assert [(item.id, item.question, item.meta) for item in kept.items] == [
        ("jbb/3", "Do it.", {LOG: "lmms-eval"}),
        ("jbb/4", "Do that.", {LOG: "lmms-eval"}),
        ("mossbench/4", "Do that.", {LOG: "lmms-eval"}),
    ]
    assert metrics(out)["jbb/asr"]["value"] == 50
    with pytest.raises(ConfigError, match="holds an evaluation already"):
        main(["import", f"harm:jbb={harm}", "--out", str(out)])


def test_what_cannot_be_imported_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "l.jsonl"
    good = {"doc_id": 0, "input": "q", "resps": [["a"]]}
    bad = [{"doc_id": 1, "input": "q"}, {"input": "q", "resps": [["a"]]}, good | {"resps": [["a"], ["b"]]}, 7]
    file.write_text("".join(json.dumps(row) + "\n" for row in [good, *bad]))
    with pytest.raises(DataError) as caught:
        IMPORTS["lmms-eval"](file, "x", "harm")
    words = str(caught.value)
    assert all(f"line {number}: needs doc_id" in words for number in (2, 3, 4)) and "line 5: not an object" in words
    file.write_text(json.dumps(good) + "\n")
    with pytest.raises(DataError, match="no benign-side items beside 1 harm-side ones"):
        main(["import", f"harm:x={file}", "--out", str(tmp_path / "o")])
    with pytest.raises(DataError, match="id 'x/0' occurs 2 times"):
        main(["import", f"utility:x={file}", f"utility:x={file}", "--out", str(tmp_path / "o")])
    with pytest.raises(ConfigError, match=r"must be written SIDE:NAME=FILE.*sides: harm, benign, utility"):
        main(["import", str(file), "--out", str(tmp_path / "o")])
    with pytest.raises(ConfigError, match="must not hold"):
        main(["import", f"harm:a/b={file}", "--out", str(tmp_path / "o")])
    assert not (tmp_path / "o").exists()


def test_an_inspect_log_holds_samples_scores_and_what_could_not_be_scored(tmp_path: Path) -> None:
    texts: dict[str, str | Answer] = {"toy/harm/1": REFUSAL, "toy/harm/2": Answer("", error="out of memory")}
    with pytest.raises(VlsafeError, match="1 of 10 responses are errors"):
        evaluate([Toy(tmp_path / "p")], FakeResponder(texts), JUDGE, Decoding(), tmp_path / "out")
    (file,) = EXPORTS["inspect"](read_folder(tmp_path / "out"), tmp_path / "log")
    log = json.loads(file.read_text(encoding="utf-8"))
    (score,) = log["results"]["scores"]
    assert (score["scored_samples"], score["unscored_samples"]) == (9, 1)
    assert score["metrics"]["toy[harm]/asr"]["value"] == pytest.approx(200 / 3)
    samples = {sample["id"]: sample for sample in log["samples"]}
    assert samples["toy/harm/1"]["scores"]["keyword:vlsafe"]["value"] == "refuse"
    assert samples["toy/harm/1"]["messages"][-1] == {"role": "assistant", "content": REFUSAL}
    failed = samples["toy/harm/2"]
    assert (failed["scores"]["keyword:vlsafe"]["value"], failed["error"]) == (None, {"message": "out of memory"})
