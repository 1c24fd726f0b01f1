"""A log in the manner of inspect's JSON logs: task, model, samples with scores, and the metrics.

Written for viewers and scripts that read ``eval``, ``results`` and ``samples``
(UKGovernmentBEIS/inspect_ai, inspect_ai/log); token counts and times are not kept in an evaluation, so there are none.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlsafe import __version__
from vlsafe.evaluation.folder import Folder, metric_row
from vlsafe.evaluation.records import Item, Response, Verdict, write_text

_STOP = {"eos": "stop", "length": "max_tokens"}


def write(folder: Folder, out: Path) -> list[Path]:
    """``log.json`` in ``out``. An answer without a verdict has the score null, as inspect's unscored samples."""
    answers = {response.id: response for response in folder.responses}
    labels = {verdict.id: verdict for verdict in folder.verdicts}
    metrics = folder.metrics()
    model = json.dumps(folder.responses[0].model, sort_keys=True, ensure_ascii=False)
    unscored = sum(verdict.label == "error" for verdict in folder.verdicts)
    values = {
        name: {"name": name, "value": metric_row(each)["value"], "options": metric_row(each)}
        for name, each in metrics.items()
    }
    log = {
        "version": 2,
        "status": "success",
        "eval": {
            "task": "vlsafe",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": model,
            "dataset": {"name": ", ".join(folder.benchmarks), "samples": len(folder.items)},
            "packages": {"vlsafe": __version__},
            "config": folder.responses[0].decoding,
        },
        "results": {
            "total_samples": len(folder.items),
            "completed_samples": len(folder.items) - unscored,
            "scores": [
                {
                    "name": folder.judge,
                    "scorer": folder.judge,
                    "scored_samples": len(folder.items) - unscored,
                    "unscored_samples": unscored,
                    "metrics": values,
                }
            ],
        },
        "samples": [_sample(item, answers[item.id], labels[item.id]) for item in folder.items],
    }
    file = out / "log.json"
    write_text(file, json.dumps(log, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return [file]


def _sample(item: Item, answer: Response, verdict: Verdict) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text}
    value = None if verdict.label == "error" else verdict.label
    asked = [{"role": "system", "content": item.system}] if item.system else []
    return {
        "id": item.id,
        "epoch": 1,
        "input": [*asked, {"role": "user", "content": item.question}],
        "target": item.reference,
        "messages": [*asked, {"role": "user", "content": item.question}, message],
        "output": {"choices": [{"message": message, "stop_reason": _STOP.get(answer.finish, "unknown")}]},
        "scores": {
            verdict.judge: {
                "value": value,
                "answer": answer.text,
                "explanation": verdict.explanation,
                "metadata": {"harmful": verdict.score},
            }
        },
        "metadata": {"scope": item.scope, "side": item.side, "group": item.group, "image_sha256": answer.image_sha256},
        "error": {"message": answer.error} if answer.error else None,
    }
