"""Gathers what a run left behind into the report's dictionary."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlsafe.data.datamodule import ConversationData
from vlsafe.environment import describe
from vlsafe.evaluation import report_text
from vlsafe.evaluation.agreement import folder_agreements
from vlsafe.evaluation.compare import compare
from vlsafe.evaluation.folder import metric_row, read_folder
from vlsafe.evaluation.report import curves_from_csv
from vlsafe.evaluation.report_examples import folder_examples
from vlsafe.evaluation.scoring import directions, score
from vlsafe.models.module import SafetyFineTuning
from vlsafe.studies.forgetting import forgetting, forgetting_values
from vlsafe.studies.objective import logged, objective


def gathered(
    directory: Path, data: ConversationData, module: SafetyFineTuning, phases: Callable[[], dict[str, float]]
) -> dict[str, Any]:
    """The report of a finished run, from its directory, and ``phases``: seconds by phase until it is called. Without an
    evaluation before it shows one side only."""
    before, after = directory / "evaluation" / "before", directory / "evaluation" / "after"
    paired = (before / "metrics.json").exists()
    last = read_folder(after)
    first = read_folder(before) if paired else None
    if paired:
        metrics = compare(before, after)
    else:
        scored = score(last.items, last.responses, last.verdicts, last.benchmarks)
        metrics = {name: {"after": metric_row(metric)} for name, metric in scored.items()}
    directed = directions(last.items, list(metrics), last.benchmarks, last.judge)
    training = sum(seconds for phase, seconds in phases().items() if phase.startswith("train"))
    report = {
        "title": directory.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "judge": last.judge,
        "metrics": metrics,
        "directions": directed,
        "objective": objective(metrics, directed),
        "forgetting": forgetting(first, last) if first else [],
        "trained": module.trained,
        "data": data_row(data, module.seen, training),
        "curves": curves_from_csv(directory / "metrics.csv"),
        "agreement": folder_agreements(after),
        "examples": folder_examples(first, last),
        "environment": versions() | {"attention": str(module.backbone.kernels)},
        "notes": [] if paired else ["This run was resumed before its first evaluation was complete: no before side."],
    }
    return report | {"phases": [{"name": name, "seconds": seconds} for name, seconds in phases().items()]}


def final_values(report: dict[str, Any]) -> dict[str, float]:
    """A report as a tracker is told it at the end: the objective, the mean of each side's sets under ``side/``, every
    metric under ``final/``, what was forgotten, and the samples of each part of the data."""
    metrics = {f"final/{name}": row["after"]["value"] for name, row in report["metrics"].items()}
    samples = {f"samples/{part['name']}": part["samples"] for part in report["data"]["parts"]}
    known = {name: value for name, value in metrics.items() if value is not None}
    sides = {f"side/{mean.side}": mean.after for mean in report_text.means(report)}
    return {**logged(report["objective"]), **sides, **known, **forgetting_values(report["forgetting"]), **samples}


def data_row(data: ConversationData, seen: dict[str, dict[str, int]], seconds: float = 0.0) -> dict[str, Any]:
    """What was really trained on, by part: samples and supervised tokens as counted in training, and ``changes``, the
    records of its source that were not taken as they stand. How it was loaded, and what of the samples was changed, by
    the first process since it began or was resumed, ``seconds`` ago."""
    mixture = data.open()
    parts = [
        {
            "name": name,
            "source": part.source
            if isinstance(part.source, str)
            else f"{part.source.get('kind')}:{part.source.get('path')}",
            "share": mixture.shares[name],
            **seen.get(name, {"samples": 0, "supervised_tokens": 0}),
            "changes": dict(data.sources[name].changes),
        }
        for name, part in data.parts.items()
    ]
    loading = {
        "workers": data.num_workers,
        "samples_per_second_per_worker": data.loading.per_worker,
        "wait_share": min(1.0, data.loading.waiting / seconds) if seconds else 0.0,
        "changes": dict(data.loading.changes),
    }
    return {"samples": sum(part["samples"] for part in parts), "parts": parts, "loading": loading}


def versions() -> dict[str, str]:
    """Versions and devices of :func:`vlsafe.environment.describe`, flat and readable."""
    facts = describe()
    flat = {name: str(value) for name, value in facts.items() if isinstance(value, str | int | float)}
    return flat | {name: str(value) for name, value in facts.get("packages", {}).items() if value}
