"""An evaluation folder on disk: which response each item has, and everything needed to score it again."""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.grades import read_grades
from vlsafe.evaluation.judges.base import Judge
from vlsafe.evaluation.pairs import Preference, read_preferences
from vlsafe.evaluation.records import Item, Metric, Response, Verdict, read_jsonl, write_text
from vlsafe.evaluation.scoring import BenchmarkClasses, bounds, directions, score


@dataclass(frozen=True, slots=True)
class Folder:
    """What a finished evaluation left: one response and one verdict for each item."""

    path: Path
    judge: str
    items: list[Item]
    responses: list[Response]
    verdicts: list[Verdict]
    benchmarks: dict[str, type[Benchmark]]
    preferences: list[Preference] = field(default_factory=list)
    grades: dict[str, list[float | None]] = field(default_factory=dict)

    def metrics(self) -> dict[str, Metric]:
        """All of them; raises as :func:`vlsafe.evaluation.scoring.score`."""
        return score(self.items, self.responses, self.verdicts, self.benchmarks, self.preferences, self.grades)


def verdicts_path(folder: Path, judge: str) -> Path:
    return folder / f"verdicts.{quote(judge, safe=':@+')}.jsonl"  # a hub name holds a slash


def write_manifest(
    folder: Path, responses: Sequence[Response], judge: Judge, benchmarks: Mapping[str, type[Benchmark]]
) -> None:
    """``manifest.json``: what made this evaluation, and which of the kept responses are its own (``keys``)."""
    manifest: dict[str, Any] = {
        "model": responses[0].model,
        "decoding": responses[0].decoding,
        "judge": judge.name,
        "judge_version": judge.version,
        "benchmarks": {name: f"{kind.__module__}:{kind.__qualname__}" for name, kind in benchmarks.items()},
        "keys": {response.id: response.key for response in responses},
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def write_metrics(
    folder: Path,
    judge: str,
    metrics: Mapping[str, Metric],
    items: Sequence[Item],
    verdicts: Sequence[Verdict],
    benchmarks: BenchmarkClasses,
) -> None:
    """``metrics.json``: rates in percent with their directions, and how often each label was given.

    A rate over no known outcome has the value null. ``bounds`` say, of the rates of labels, where they would be if no
    unscored item counted, and if each did.
    """
    scope_of = {item.id: item.scope for item in items}
    labels: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        labels.setdefault(scope_of[verdict.id], Counter())[verdict.label] += 1
    content = {
        "judge": judge,
        "metrics": {name: metric_row(metric) for name, metric in metrics.items()},
        "bounds": {name: bounds(each) for name, each in metrics.items() if name.rpartition("/")[2] in Benchmark.better},
        "directions": directions(items, list(metrics), benchmarks, judge),
        "labels": {scope: dict(sorted(counts.items())) for scope, counts in sorted(labels.items())},
    }
    write_text(folder / "metrics.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def metric_row(metric: Metric) -> dict[str, Any]:
    """``{value, low, high, n, n_error}`` for JSON, which has no NaN."""
    return asdict(metric) | {"value": None if math.isnan(metric.value) else metric.value}


def read_folder(path: Path, judge: str | None = None) -> Folder:
    """Read an evaluation back, with the verdicts of ``judge`` (else of the manifest's judge, else of the only one).

    Works without ``manifest.json`` as long as no item has responses of several keys. Raises DataError and ConfigError.
    """
    items = read_jsonl(_required(path / "items.jsonl"), Item)
    manifest = _manifest(path)
    wanted = {item.id for item in items}
    rows = [row for row in read_jsonl(_required(path / "responses.jsonl"), Response) if row.id in wanted]
    keys = manifest.get("keys") or _only_keys(rows, path)
    responses = {row.id: row for row in rows if keys.get(row.id) == row.key}
    judge = judge or manifest.get("judge") or _only_judge(path)
    given = read_jsonl(_required(verdicts_path(path, judge), judges_of(path)), Verdict)
    verdicts = {row.id: row for row in given if keys.get(row.id) == row.key}
    names = {item.benchmark for item in items}
    benchmarks = {name: _benchmark(name, manifest.get("benchmarks", {}).get(name)) for name in sorted(names)}
    preferences = [row for row in read_preferences(path) if row.key == keys.get(row.item_id)]
    grades = read_grades(path, keys)
    return Folder(
        path, judge, items, list(responses.values()), list(verdicts.values()), benchmarks, preferences, grades
    )


def _manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    if not file.exists():
        return {}
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error}); run evaluate again") from error
    return manifest


def _required(file: Path, instead: Sequence[str] = ()) -> Path:
    if not file.is_file():
        others = f"; there are verdicts of {', '.join(instead)}" if instead else ""
        raise DataError(f"{file}: no such file; is {file.parent} the folder of an evaluation?{others}")
    return file


def _only_keys(responses: Sequence[Response], path: Path) -> dict[str, str]:
    keys: dict[str, str] = {}
    for response in responses:
        if keys.setdefault(response.id, response.key) != response.key:
            raise DataError(
                f"{path / 'responses.jsonl'}: item {response.id!r} has responses of several models or settings and "
                "no manifest.json says which count; run evaluate again"
            )
    return keys


def judges_of(path: Path) -> list[str]:
    """Names of the judges whose verdicts the folder holds."""
    files = path.glob("verdicts.*.jsonl")
    return sorted(unquote(file.name.removeprefix("verdicts.").removesuffix(".jsonl")) for file in files)


def _only_judge(path: Path) -> str:
    judges = judges_of(path)
    if len(judges) != 1:
        found = (
            f"verdicts of {', '.join(judges)}; choose one with --judge"
            if judges
            else "no verdicts.*.jsonl; judge first"
        )
        raise ConfigError(f"{path} holds {found}")
    return judges[0]


def _benchmark(name: str, target: str | None) -> type[Benchmark]:
    """The class that the manifest names, else the table's, else the metrics that every benchmark has."""
    if target is None:
        known: type[Benchmark] = BENCHMARKS[name] if name in BENCHMARKS else Benchmark  # noqa: SIM401
        return known
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"benchmark {name!r} was scored by {target}, which cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Benchmark)):
        raise ConfigError(f"benchmark {name!r}: {target} is not a Benchmark")
    return found
