"""The verbs ``judge`` and ``score``, which work on files that are already there."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.agreement import Agreement, agreements, folder_agreements, human_labels, told
from vlsafe.evaluation.folder import read_folder, write_metrics
from vlsafe.evaluation.judges.itself import refuse_judged
from vlsafe.evaluation.judges.options import add_judge_options, chosen_judge
from vlsafe.evaluation.records import Item, Metric, Response, Side, numbered_rows, write_text
from vlsafe.evaluation.report_text import marks
from vlsafe.evaluation.scoring import check_errors, directions


def judge_main(argv: list[str]) -> int:
    """``judge RESPONSES.jsonl --judge J --out FILE``. Raises VlsafeError; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="vlsafe judge",
        description="Give a verdict on each answer in a JSONL file.",
        epilog="Reads rows with id, question and text; an `error` marks an answer that failed, a `side` (harm, benign, "
        "utility) says what should have happened. Writes each row, with all its fields, plus label, score, judge and "
        "explanation (fields of these names are replaced).",
        allow_abbrev=False,
    )
    parser.add_argument("responses", type=Path, metavar="RESPONSES.jsonl")
    add_judge_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="JSONL of id and label by people; prints agreement"
    )
    options = parser.parse_args(argv)
    judge = chosen_judge(options)
    people = human_labels(options.against) if options.against else {}
    if options.out.resolve() == options.responses.resolve():
        raise ConfigError(f"--out is the file that is read, {options.out}; choose another")
    rows = _read_rows(options.responses)
    # Rows are told apart by position: a file may hold an id twice, answered by two models.
    responses = [_response(str(number), row) for number, row in enumerate(rows)]
    items = {
        each.id: Item(each.id, "", "", row.get("side", "utility"), each.question)
        for each, row in zip(responses, rows, strict=True)
    }
    refuse_judged(judge, responses)
    verdicts = list(judge.judge(responses, items))
    judged = [
        row | {"label": each.label, "score": each.score, "judge": each.judge, "explanation": each.explanation}
        for row, each in zip(rows, verdicts, strict=True)
    ]
    write_text(options.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in judged))
    for label in sorted({verdict.label for verdict in verdicts}):
        count = sum(verdict.label == label for verdict in verdicts)
        print(f"{label:<14}{count:>8}{100 * count / len(verdicts):>8.1f} %")
    if judge.told():
        print(judge.told(), file=sys.stderr)
    if people:
        given = {str(row["id"]): verdict.label for row, verdict in zip(rows, verdicts, strict=True)}
        for agreement in agreements(judge.name, given, "people", people):
            print(told(agreement))
    check_errors(responses, verdicts)
    return 0


def score_main(argv: list[str]) -> int:
    """``score DIR [--judge J]``. Raises VlsafeError; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="vlsafe score",
        description="Turn the verdicts of an evaluation folder into metrics with 95 % intervals.",
        epilog="Reads items.jsonl, responses.jsonl, verdicts.<judge>.jsonl and manifest.json in DIR. Writes "
        "metrics.json there and a table on standard output.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--judge", help="whose verdicts (default: the one that the folder was made with)")
    options = parser.parse_args(argv)
    folder = read_folder(options.folder, options.judge)
    metrics = folder.metrics()
    write_metrics(folder.path, folder.judge, metrics, folder.items, folder.verdicts, folder.benchmarks)
    print(f"judge: {folder.judge}")
    print(metrics_table(metrics, directions(folder.items, list(metrics), folder.benchmarks, folder.judge)))
    for row in folder_agreements(folder.path):
        print(told(Agreement(**row)))
    check_errors(folder.responses, folder.verdicts, folder.preferences)
    return 0


def metrics_table(metrics: Mapping[str, Metric], ways: Mapping[str, Mapping[str, str]] = MappingProxyType({})) -> str:
    """The short table for standard output: metric, percent, 95 % interval, n, errors, and below it what
    :func:`vlsafe.evaluation.scoring.directions` (``ways``) notes on metrics."""
    notes = marks({"directions": ways})
    width = max(len("metric"), *map(len, metrics))
    lines = [f"{'metric':<{width}}  {'%':>6}  {'95 % interval':>15}  {'n':>5}  {'errors':>6}"]
    for name, metric in metrics.items():
        value = "-" if math.isnan(metric.value) else f"{metric.value:.2f}"
        interval = f"[{metric.low:.1f}, {metric.high:.1f}]"
        lines.append(f"{name:<{width}}  {value:>6}  {interval:>15}  {metric.n:>5}  {metric.n_error:>6}")
        lines[-1] += f"  {notes[ways[name]['note']]}" if "note" in ways.get(name, {}) else ""
    lines += [f"{mark} {note}" for note, mark in notes.items()]
    return "\n".join(lines)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows, each with an ``id``, a ``question`` and a ``text``; every bad line is reported by its number."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for where, row in numbered_rows(path, problems):
        wrong = [name for name in ("id", "question", "text") if not isinstance(row.get(name), str)]
        if isinstance(row.get("id"), int):
            wrong.remove("id")
        if row.get("side", "utility") not in get_args(Side):
            wrong.append("side")
        if wrong:
            problems.append(f"{where}: {', '.join(wrong)} missing or not text")
        rows.append(row)
    if problems:
        raise DataError(problems)
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def _response(number: str, row: dict[str, Any]) -> Response:
    error = str(row.get("error") or "")
    finish = "error" if error else "eos"
    model = row["model"] if isinstance(row.get("model"), dict) else {}
    return Response(number, number, "", "", row["question"], row["text"], "", 0, finish, error, "", {}, model)
