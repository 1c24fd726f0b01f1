"""The verb ``study``: stages run one from another, runs compared on one page, what was forgotten between two."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vlsafe.errors import ConfigError
from vlsafe.evaluation.records import write_text
from vlsafe.studies.forgetting import FORGOTTEN, forgetting_between
from vlsafe.studies.pipeline import Pipeline
from vlsafe.studies.runs import Run, check_comparable, read_runs
from vlsafe.studies.stage_file import read_stages
from vlsafe.studies.study_page import page
from vlsafe.studies.tradeoff import front
from vlsafe.studies.wandb_runs import read_offline, read_project

_WIDE = 140
"""Columns of a table that goes into a file or a pipe, where nothing needs to be wrapped."""
_PROJECT, _OFFLINE = "wandb:", "wandb-offline:"
_SHARE = "data.init_args.parts.safety.share"


def main(argv: list[str]) -> int:
    """``study run STAGE.yaml...``, ``study report RUN... --out FILE``, ``study forgetting BEFORE AFTER``.

    Raises VlsafeError.
    """
    parser = argparse.ArgumentParser(
        prog="vlsafe study",
        allow_abbrev=False,
        description="Run stages one from another, or compare finished runs. Reads stage files or run directories; "
        "writes run directories, one HTML page, or a table.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    stages = verbs.add_parser(
        "run",
        allow_abbrev=False,
        help="a pipeline of runs, each from an earlier one's model",
        description="Bring every stage to its end; the same command goes on after a kill, and runs no finished stage "
        "again unless its config or the model that it starts from has changed.",
        epilog="Reads fit configs with a header `stage`. Writes DIR/<stage>/run, a run directory each, and stage.json, "
        "command.json and output.log beside it; DIR/stages.json and DIR/study.html. Exit status 1 when a stage failed.",
    )
    stages.add_argument("stages", type=Path, nargs="+", metavar="STAGE.yaml")
    stages.add_argument("--out", type=Path, metavar="DIR", help="default: runs/<name of the stage files' folder>")
    stages.add_argument("--config", type=Path, action="append", default=[], help="laid over every stage; repeatable")
    stages.add_argument("--workers", type=int, default=1, help="stages at a time (default: 1)")
    stages.add_argument("--share", default=_SHARE, help="config key of the report's share plot")
    report = verbs.add_parser(
        "report",
        allow_abbrev=False,
        help="the trade-off of many runs on one page",
        description="Draw safety, over-refusal and utility of many runs, and recommend a setting.",
        epilog="Reads run directories, or folders that hold some at any depth: report.json, config.yaml, metrics.csv. "
        "Writes one HTML page that loads nothing.",
    )
    report.add_argument(
        "runs", nargs="+", metavar="RUN", help="a folder, wandb:ENTITY/PROJECT, or wandb-offline:DIR with .wandb files"
    )
    report.add_argument("--out", type=Path, required=True, metavar="FILE.html")
    report.add_argument("--share", default=_SHARE, help="config key of the share plot")
    pair = verbs.add_parser(
        "forgetting",
        allow_abbrev=False,
        help="what was right before and is wrong after",
        description="Compare two evaluation folders item by item, text and picture side apart.",
        epilog="Reads two folders that `vlsafe evaluate` or a run wrote, of the same items. Writes a table on standard "
        "output and, with --out, JSON: rows, and every item that changed.",
    )
    pair.add_argument("before", type=Path)
    pair.add_argument("after", type=Path)
    pair.add_argument("--judge", help="whose verdicts (default: the one that the folders were made with)")
    pair.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(argv)
    return {"run": _run, "report": _report, "forgetting": _forgetting}[options.verb](options)


def _run(options: argparse.Namespace) -> int:
    missing = [f"--config {path}: no such file" for path in options.config if not path.is_file()]
    if options.workers < 1:
        missing.append(f"--workers is {options.workers}, must be at least 1")
    if missing:
        raise ConfigError(missing)
    stages = read_stages(options.stages)
    directory: Path = options.out or Path("runs") / options.stages[0].resolve().parent.name
    pipeline = Pipeline(stages, directory, options.config, options.workers)
    try:
        pipeline.run()
    finally:
        Console(width=None if sys.stdout.isatty() else _WIDE).print(pipeline.table())
        write_text(directory / "stages.json", json.dumps(pipeline.rows(), indent=1) + "\n")
    runs = pipeline.runs()
    if runs:
        check_comparable(runs)
        write_text(directory / "study.html", page(runs, directory / "study.html", options.share))
        print(f"report: {directory / 'study.html'}")
    print(f"study: {directory}")
    return 0


def _report(options: argparse.Namespace) -> int:
    if options.out.suffix != ".html":
        raise ConfigError(f"--out {options.out}: the report is a page, name it .html")
    runs = _gathered(options.runs)
    write_text(options.out, page(runs, options.out, options.share))
    print(f"{len(runs)} runs, {len(front(runs))} of them on the Pareto front")
    print(f"report: {options.out}")
    return 0


def _gathered(names: Sequence[str]) -> list[Run]:
    """The runs of all places. Raises VlsafeError as their readers do, or where they cannot be compared."""
    local = [Path(name) for name in names if not name.startswith((_PROJECT, _OFFLINE))]
    runs = read_runs(local) if local else []
    for name in names:
        if name.startswith(_PROJECT):
            runs += read_project(name.removeprefix(_PROJECT))
        elif name.startswith(_OFFLINE):
            runs += read_offline(Path(name.removeprefix(_OFFLINE)))
    check_comparable(runs)
    return runs


def _forgetting(options: argparse.Namespace) -> int:
    rows, flips = forgetting_between(options.before, options.after, options.judge)
    width = max(len(row["metric"]) for row in rows)
    print(f"{'metric':<{width}}  pictures  {'n':>5}  {'forgotten':>9}  {'gained':>6}  retention, %")
    for row in rows:
        kept = "-" if row["retention"] is None else f"{row['retention']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        counts = f"{row['n']:>5}  {row['forgotten']:>9}  {row['gained']:>6}"
        print(f"{row['metric']:<{width}}  {row['pictures']:<8}  {counts}  {kept}")
    for side, words in FORGOTTEN.items():
        print(f"{side}: {words}")
    if options.out is not None:
        write_text(options.out, json.dumps({"rows": rows, "flips": flips}, indent=1, ensure_ascii=False) + "\n")
    return 0
