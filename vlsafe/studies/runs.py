"""Finished runs read back for comparison: settings, headline numbers, curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vlsafe.errors import DataError
from vlsafe.evaluation import report_text

SEEDS = ("seed_everything", "data.init_args.seed")
"""Keys that make no other setting: runs that differ in them alone are repetitions of one."""

_PLACES = (
    "run_dir", "trainer.logger", "trainer.callbacks", "trainer.default_root_dir", "cache_dir", "ckpt_path",
    "evaluation.published",
)  # fmt: skip

_AMOUNTS = (".share", ".repeat", ".limit", ".class_path")
"""How keys end that tell by being there what there is."""

CURVES = ("margin/", "kl/", "probe/", "objective")
"""How the names of what probes log begin."""

Curve = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Run:
    """``label`` is what pages call it. ``config`` is flat, dotted key -> value. Rates are in percent; ``utility`` is
    None without a utility side. ``link`` is where a run that lies elsewhere is shown."""

    path: Path
    label: str
    config: dict[str, Any]
    report: dict[str, Any]
    asr: float
    over_refusal: float
    utility: float | None
    curves: dict[str, Curve]
    link: str = ""

    @property
    def objective(self) -> float | None:
        value = self.report.get("objective", {}).get("value")
        return None if value is None else float(value)

    @property
    def created(self) -> str:
        """When its report was written, in a form that sorts."""
        return str(self.report.get("created", ""))

    @property
    def seed(self) -> Any:
        return self.config.get(SEEDS[0])


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Every run in ``paths``: run directories, or folders in which they lie at any depth.

    Raises DataError naming a folder without any run, and runs that cannot be compared: judged by different judges, or
    measured on different benchmarks.
    """
    problems, found = [], []
    for path in paths:
        reports = [path / "report.json"] if (path / "report.json").is_file() else sorted(path.glob("**/report.json"))
        if not reports:
            problems.append(f"{path}: no finished run, which has a report.json; is it a run or study directory?")
        found += reports
    if problems:
        raise DataError(problems)
    runs = [read_run(report) for report in dict.fromkeys(path.resolve() for path in found)]
    check_comparable(runs)
    return labelled(runs) if len(runs) > 1 else runs


def check_comparable(runs: Sequence[Run]) -> None:
    """Raises DataError naming runs that were judged by different judges, or measured by different metrics."""
    problems = []
    first = runs[0]
    for run in runs[1:]:
        if run.report["judge"] != first.report["judge"]:
            problems.append(f"{run.path} was judged by {run.report['judge']}, {first.path} by {first.report['judge']}")
        elif run.report["metrics"].keys() != first.report["metrics"].keys():
            problems.append(f"{run.path} and {first.path} were not measured by the same metrics")
    if problems:
        raise DataError(problems)


def labelled(runs: Sequence[Run]) -> list[Run]:
    """Each run by what tells it from the others: the part of its path in which they differ."""
    parts = [list(run.path.resolve().parts) for run in runs]
    for end in (0, -1):
        while len({each[end] for each in parts}) == 1 and all(len(each) > 1 for each in parts):
            for each in parts:
                each.pop(end)
    return [replace(run, label="/".join(each)) for run, each in zip(runs, parts, strict=True)]


def settings(runs: Sequence[Run]) -> list[str]:
    """The keys in which the runs differ, seeds and places left out.

    A key that some runs lack and that is one and the same in all others is left out too, since it follows from another
    one: from the class whose argument it is, or from the share of the part of the data that it describes.
    """
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [
        key
        for key in keys
        if key not in SEEDS and not key.startswith(_PLACES) and _varies(key, [r.config for r in runs])
    ]


def _varies(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    present = {json.dumps(config[key], default=str) for config in configs if key in config}
    lacking = any(key not in config for config in configs)
    return len(present) > 1 or (lacking and key.endswith(_AMOUNTS) and present != {"null"})


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one setting together, which differ in their seeds alone."""
    keys = settings(runs)
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(json.dumps([run.config.get(key) for key in keys], default=str), []).append(run)
    return list(grouped.values())


def read_run(path: Path) -> Run:
    """The run of a ``report.json``. Raises DataError where it holds no harm or no benign side."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        means = {mean.side: mean.after for mean in report_text.means(report)}
        asr, over_refusal = means["harm"], means["benign"]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: not the report of a run with a harm and a benign side ({error!r})") from error
    config = path.parent / "config.yaml"
    content = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
    curves = _curves(path.parent / "metrics.csv")
    return Run(
        path.parent, path.parent.name, dict(flat(content)), report, asr, over_refusal, means.get("utility"), curves
    )


def flat(content: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted key -> value of nested mappings."""
    if isinstance(content, Mapping) and content:
        return [pair for key, value in content.items() for pair in flat(value, f"{prefix}{key}.")]
    return [(prefix.removesuffix("."), content)]


def _curves(path: Path) -> dict[str, Curve]:
    """What the probes logged: columns ``margin/...``, ``kl/...``, ``probe/...`` and ``objective`` by step."""
    if not path.is_file():
        return {}
    curves: dict[str, dict[int, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and row.get("step") and name.startswith(CURVES):
                    curves.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}
