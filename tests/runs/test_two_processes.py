"""A whole run by two processes of one device each leaves what a run by one leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_run import tiny_run
from tests.torchrun import begun, done
from vlsafe.evaluation.records import Item, Response, read_jsonl


def told(run: Path, side: str) -> tuple[dict[str, str], Any]:
    """What was answered to each item, and the metrics."""
    folder = run / "evaluation" / side
    assert not list(folder.glob(".*.part-*"))
    answers = {row.id: row.text for row in read_jsonl(folder / "responses.jsonl", Response)}
    return answers, json.loads((folder / "metrics.json").read_text())["metrics"]


@pytest.mark.slow
def test_two_processes_answer_and_train_what_one_does(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    content["data"]["init_args"]["batch_size"] = 2
    content["trainer"] |= {"devices": 2, "strategy": "ddp"}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(content))
    status, words = done(begun(1, ["fit", "--config", str(config), "--run_dir", str(tmp_path / "one")], tmp_path))
    assert status == 0, words
    status, words = done(begun(1, ["fit", "--config", "two.yaml", "--run_dir", str(tmp_path / "two")], tmp_path))
    assert status == 0 and words.count("evaluate after") == 1, words

    for side in ("before", "after"):
        assert told(tmp_path / "one", side) == told(tmp_path / "two", side)
    items = [item.id for item in read_jsonl(tmp_path / "two" / "evaluation" / "after" / "items.jsonl", Item)]
    order = [row.id for row in read_jsonl(tmp_path / "two" / "evaluation" / "after" / "responses.jsonl", Response)]
    assert set(order[: (len(items) + 1) // 2]) == set(items[::2])  # the first process's share comes first
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two")]
    assert reports[0]["data"]["parts"] == reports[1]["data"]["parts"]
