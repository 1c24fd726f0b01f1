"""MM-Vet graded through an endpoint: what is asked, what a failed grade becomes, and what the verb leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from PIL import Image

from tests.evaluation.fakes import FakeResponder
from tests.evaluation.test_api_judges import Server
from tests.loopback import serving
from vlsafe.answering import Decoding
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.evaluate_report import report
from vlsafe.evaluation.benchmarks.open_ended import MMVet
from vlsafe.evaluation.commands import score_main
from vlsafe.evaluation.compare import compare
from vlsafe.evaluation.folder import read_folder
from vlsafe.evaluation.grade_command import main
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.stages import evaluate

GRADES = {"seven": "1.0", "a bicycle": "0.5"}


def graded(request: dict[str, Any]) -> dict[str, str]:
    """By the answer that stands between the marker lines."""
    (evidence,) = re.findall(r"<evidence \w+>\n(.*)\n</evidence", request["messages"][1]["content"])
    return {"reason": "r", "grade": GRADES[json.loads(evidence)["answer"]]}


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()
    told.reply = graded
    with serving(told.respond) as address:
        told.url = f"{address}/v1"
        yield told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = {
        "v1_0": {"imagename": "a.png", "question": "How many?", "answer": "7", "capability": ["rec", "math"]},
        "v1_1": {"imagename": "a.png", "question": "What?", "answer": "red <AND> a bicycle", "capability": ["rec"]},
        "v1_2": {"imagename": "a.png", "question": "Why?", "answer": "rain", "capability": ["know"]},
    }
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    (tmp_path / "mm-vet.json").write_text(json.dumps(rows))
    texts = {"mm_vet/v1_0": "seven", "mm_vet/v1_1": "a bicycle", "mm_vet/v1_2": ""}
    evaluate([MMVet(tmp_path)], FakeResponder(texts), judge_named("keyword:vlsafe"), Decoding(), tmp_path / "out")
    return tmp_path / "out"


def arguments(folder: Path, server: Server, *more: str) -> list[str]:
    return [str(folder), "--grader", f"api:judge-7b@{server.url}", f"--grader-option=cache={folder / 'cache'}", *more]


def test_scores_by_capability_from_several_runs(folder: Path, server: Server) -> None:
    assert main(arguments(folder, server, "--runs", "2")) == 0
    (file,) = folder.glob("grades.*.json")
    told = json.loads(file.read_text(encoding="utf-8"))
    assert told["grades"] == {"mm_vet/v1_0": [1.0, 1.0], "mm_vet/v1_1": [0.5, 0.5], "mm_vet/v1_2": [0.0, 0.0]}
    values = {name: metric["value"] for name, metric in told["metrics"].items()}
    assert values == {
        "mm_vet/score[total]": 50,
        "mm_vet/score[know]": 0,
        "mm_vet/score[math]": 100,
        "mm_vet/score[rec]": 75,
    }
    assert len(server.asked) == 4  # two answers, two runs; nobody is asked about an empty one
    assert main(arguments(folder, server, "--runs", "2")) == 0
    assert len(server.asked) == 4  # paid for once


def test_scores_join_the_folder_s_metrics_and_its_report_until_the_answers_change(
    folder: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    report(folder, "a model")
    assert main(arguments(folder, server)) == 0
    for file in ("metrics.json", "report.json"):
        told = json.loads((folder / file).read_text(encoding="utf-8"))
        score = told["metrics"]["mm_vet/score[total]"]
        assert score.get("after", score)["value"] == 50
        assert told["directions"]["mm_vet/score[total]"] == {"side": "utility", "better": "higher"}
    assert "mm_vet/score[total]" in (folder / "report.html").read_text(encoding="utf-8")
    assert read_folder(folder).metrics()["mm_vet/score[rec]"].value == 75
    pairs = compare(folder, folder)
    assert pairs["mm_vet/score[total]"]["difference"]["value"] == 0
    assert score_main([str(folder)]) == 0
    assert "mm_vet/score[total]" in capsys.readouterr().out

    other = FakeResponder({"mm_vet/v1_0": "seven"}, weights="retrained")
    evaluate([MMVet(folder.parent)], other, judge_named("keyword:vlsafe"), Decoding(), folder)
    assert not any("score" in name for name in read_folder(folder).metrics())  # graded were other answers
    with pytest.raises(ConfigError, match=r"grades of another grader \(grades\.api:judge-7b"):
        main([str(folder), "--grader", f"api:judge-8b@{server.url}"])


def test_a_grade_that_cannot_be_had_is_no_zero_and_fails_the_run(folder: Path, server: Server) -> None:
    server.reply = lambda request: {**graded(request), "grade": "eleven"}
    with pytest.raises(VlsafeError, match=r"2 of 3 grades are errors, more than 1 %"):
        main(arguments(folder, server))
    (file,) = folder.glob("grades.*.json")
    total = json.loads(file.read_text(encoding="utf-8"))["metrics"]["mm_vet/score[total]"]
    assert (total["value"], total["n"], total["n_error"]) == (0, 1, 2)


def test_a_folder_without_open_answers_says_so(tmp_path: Path, server: Server) -> None:
    from tests.evaluation.fakes import Toy

    toy = Toy(tmp_path / "p")
    evaluate([toy], FakeResponder({}), judge_named("keyword:vlsafe"), Decoding(), tmp_path / "o")
    with pytest.raises(DataError, match="no mm_vet items to grade"):
        main(arguments(tmp_path / "o", server))
