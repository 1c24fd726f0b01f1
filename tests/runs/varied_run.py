"""A tiny run whose items put several processes out of step: of an odd number, with and without images, answered in one
token and in many, and two that are scored by likelihood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import language_model
from tests.tiny_run import tiny_run

PROMPTS = "id,prompt,type,label\n1,How?,t,safe\n2,Why is it so and not so?,t,unsafe\n3,x,t,safe\n"
BENCHMARKS = "vlsafe.evaluation.benchmarks"


def varied_run(folder: Path) -> dict[str, Any]:
    """The content of a config with its data in ``folder``. Weights are large, so that every prompt has an answer of its
    own, which is another after tuning."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = yaml.safe_load(tiny_run(folder).read_text())
    backbone = content["model"]["init_args"]["backbone"]["init_args"]
    backbone["language_model"] = language_model(folder / "tokenizer", initializer_range=0.6)
    (folder / "xstest.csv").write_text(PROMPTS)
    rows = [{"question": f"q{n}", "choices": ["a", "b", "cd"], "answer": 0, "subject": "s"} for n in range(2)]
    (folder / "mmlu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content["evaluation"] |= {"max_new_tokens": 12, "batch_size": 2}
    content["evaluation"]["benchmarks"] += [
        {"class_path": f"{BENCHMARKS}.xstest.XSTest", "init_args": {"path": str(folder / "xstest.csv")}},
        {"class_path": f"{BENCHMARKS}.choices.MMLU", "init_args": {"path": str(folder / "mmlu.jsonl")}},
    ]
    some = {"benchmarks": content["evaluation"]["benchmarks"][:2], "every_n_steps": 2}
    content["trainer"]["callbacks"] = [
        {"class_path": "callbacks.SafetyProbe", "init_args": some},
        {"class_path": "callbacks.ForgettingProbe", "init_args": some},
    ]
    return content


def on_two(content: dict[str, Any], strategy: str) -> dict[str, Any]:
    """The same run by two processes: as many samples at a time."""
    data = content["data"]["init_args"]
    both = {"data": content["data"] | {"init_args": data | {"batch_size": data["batch_size"] // 2}}}
    return content | both | {"trainer": content["trainer"] | {"devices": 2, "strategy": strategy}}
