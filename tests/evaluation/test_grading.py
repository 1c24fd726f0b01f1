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
from tests.evaluation.test_api_judges import Server, serving
from vlsafe.answering import Decoding
from vlsafe.errors import DataError, VlsafeError
from vlsafe.evaluation.benchmarks.open_ended import MMVet
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
    with serving(Server()) as server:
        server.reply = graded
        yield server


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
