"""A model does not judge itself, by any of the names that it goes by."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.judges.itself import refuse_itself


@dataclass
class Judge:
    name: str = "guard:x:model"
    weights: str = ""
    served: str = ""


def test_the_same_name_or_the_same_files_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "model.safetensors").write_bytes(b"weights")
    shutil.copytree(one, other)
    for model in (one, other):  # a copy is the same model
        with pytest.raises(ConfigError, match=r"would judge itself, by guard:x:model; choose a judge"):
            refuse_itself(Judge(weights=str(one)), str(model))
    (other / "model.safetensors").write_bytes(b"tuned!!")
    refuse_itself(Judge(weights=str(one)), str(other))
    with pytest.raises(ConfigError, match="'org/model' would judge itself"):
        refuse_itself(Judge(weights="org/model"), "org/model")
    refuse_itself(Judge(weights="org/guard"), "org/model")


def test_a_served_model_is_known_by_its_name() -> None:
    with pytest.raises(ConfigError, match="would judge itself"):
        refuse_itself(Judge(served="m-7b"), "m-7b@http://127.0.0.1:1/v1")
    refuse_itself(Judge(served="judge-7b"), "m-7b@http://127.0.0.1:1/v1")
    refuse_itself(judge_named("keyword:vlsafe"), "m-7b@http://127.0.0.1:1/v1")
    refuse_itself(Judge(), "http://127.0.0.1:1/v1")


def test_answers_of_the_judge_s_own_model_are_refused_from_their_records(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from vlsafe.evaluation.commands import judge_main

    rows = tmp_path / "r.jsonl"
    rows.write_text(json.dumps({"id": "a", "question": "q", "text": "t", "model": {"served": "m-7b"}}) + "\n")
    with pytest.raises(ConfigError, match=r"'m-7b' would judge itself, by api:m-7b"):
        judge_main([str(rows), "--judge", "api:m-7b@http://127.0.0.1:1/v1", "--out", str(tmp_path / "v.jsonl")])
    assert not (tmp_path / "v.jsonl").exists()
