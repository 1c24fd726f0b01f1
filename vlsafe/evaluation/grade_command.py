"""The verb ``grade``: a language model grades the open answers of an evaluation (MM-Vet)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks.open_ended import MMVet
from vlsafe.evaluation.commands import metrics_table
from vlsafe.evaluation.folder import Folder, metric_row, read_folder, write_metrics
from vlsafe.evaluation.grades import grades_path, score_tallies
from vlsafe.evaluation.judges.itself import refuse_judged
from vlsafe.evaluation.judges.options import chosen_grader
from vlsafe.evaluation.records import Metric, write_text
from vlsafe.evaluation.report import write_report
from vlsafe.evaluation.scoring import check_error_share, directions
from vlsafe.evaluation.tallies import estimate


def main(argv: list[str]) -> int:
    """``grade DIR --grader api:MODEL@URL``. Raises VlsafeError; returns the exit status."""
    options = _parser().parse_args(argv)
    if options.runs < 1:
        raise ConfigError(f"--runs is {options.runs}; give at least 1")
    folder = read_folder(options.folder)
    names = [name for name, kind in folder.benchmarks.items() if issubclass(kind, MMVet)]
    items = [item for item in folder.items if item.benchmark in names]
    if not items:
        raise DataError(f"{options.folder}: no mm_vet items to grade; evaluate with --benchmarks mm_vet=PATH first")
    grader = chosen_grader(options)
    answers = {response.id: response for response in folder.responses}
    out = grades_path(options.folder, grader.name)
    others = [file.name for file in options.folder.glob("grades.*.json") if file != out]
    if others:
        raise ConfigError(f"{options.folder} holds grades of another grader ({', '.join(others)}); move them elsewhere")
    refuse_judged(grader, [answers[item.id] for item in items])
    exchanges = [(answers[item.id], item) for item in items]
    grades = dict(zip((item.id for item in items), grader.grade(exchanges, options.runs), strict=True))
    metrics = {name: estimate(tally) for name, tally in score_tallies(items, grades).items()}
    content = {
        "grader": grader.name,
        "version": grader.version,
        "runs": options.runs,
        "metrics": {name: metric_row(metric) for name, metric in metrics.items()},
        "grades": grades,
        "keys": {item.id: answers[item.id].key for item in items},
    }
    write_text(out, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _enter(metrics, read_folder(options.folder))
    print(metrics_table(metrics))
    print(f"grades: {out}")
    print(grader.told(), file=sys.stderr)
    every = [grade for each in grades.values() for grade in each]
    check_error_share("grades", ["no grade"] * every.count(None), len(every))
    return 0


def _enter(scores: Mapping[str, Metric], folder: Folder) -> None:
    """Add the scores to the folder's metrics and, where it has a report, to that."""
    write_metrics(folder.path, folder.judge, folder.metrics(), folder.items, folder.verdicts, folder.benchmarks)
    file = folder.path / "report.json"
    if file.is_file():
        report = json.loads(file.read_text(encoding="utf-8"))
        report["metrics"] |= {name: {"after": metric_row(metric)} for name, metric in scores.items()}
        report["directions"] |= directions(folder.items, list(scores), folder.benchmarks, folder.judge)
        write_report(report, folder.path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe grade",
        description="Grade the open answers of an evaluation (mm_vet) from 0 to 1 against the right ones.",
        epilog="Reads the folder of an evaluation. Writes grades.<grader>.json there: the total and each capability's "
        "score in percent, with intervals, and every grade; the scores join metrics.json and report.html. What was "
        "graded before comes from the cache.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--grader", required=True, metavar="api:MODEL@URL", help="an OpenAI-compatible endpoint")
    parser.add_argument(
        "--grader-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the endpoint, as in concurrency=32; docs/judges.md names them",
    )
    parser.add_argument("--runs", type=int, default=1, help="grades of each answer, averaged (MM-Vet: 5; default: 1)")
    return parser
