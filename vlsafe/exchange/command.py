"""The verb ``exchange``: an evaluation as another tool's log, and another tool's log as an evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.benchmarks.base import Benchmark, check_unique
from vlsafe.evaluation.commands import metrics_table
from vlsafe.evaluation.folder import read_folder, verdicts_path, write_manifest, write_metrics
from vlsafe.evaluation.judges.options import add_judge_options, chosen_judge
from vlsafe.evaluation.records import Item, Response, Side, append_jsonl
from vlsafe.evaluation.scoring import check_errors, check_sides, score
from vlsafe.evaluation.stages import judge_responses, write_items
from vlsafe.exchange import EXPORTS, IMPORTS, LOG


def main(argv: list[str]) -> int:
    """``exchange export DIR --to NAME --out DIR`` and ``exchange import SIDE:NAME=FILE ... --out DIR``. Raises
    VlsafeError; returns the exit status."""
    options = _parser().parse_args(argv)
    return _export(options) if options.way == "export" else _import(options)


def _export(options: argparse.Namespace) -> int:
    for file in EXPORTS[options.to](read_folder(options.folder, options.judge), options.out):
        print(f"written: {file}")
    return 0


def _import(options: argparse.Namespace) -> int:
    judge, out = chosen_judge(options), options.out
    if (out / "items.jsonl").exists():
        raise ConfigError(f"--out {out} holds an evaluation already; choose another folder")
    items: list[Item] = []
    responses: list[Response] = []
    for spec in options.logs:
        asked, answered = _read(spec, getattr(options, "from"))
        items, responses = [*items, *asked], [*responses, *answered]
    check_sides(items)
    check_unique(items, "the logs together")
    write_items(items, out / "items.jsonl")
    append_jsonl(out / "responses.jsonl", responses)
    verdicts = judge_responses(responses, items, judge, verdicts_path(out, judge.name))
    benchmarks = _scored_by(items)
    write_manifest(out, responses, judge, benchmarks)
    metrics = score(items, responses, verdicts, benchmarks)
    write_metrics(out, judge.name, metrics, items, verdicts, benchmarks)
    print(metrics_table(metrics))
    print(f"evaluation: {out}")
    check_errors(responses, verdicts)
    return 0


def _scored_by(items: list[Item]) -> dict[str, type[Benchmark]]:
    """What another tool asked is scored by its verdicts alone: our rules for reading an answer fit our own prompts."""
    foreign = {item.benchmark for item in items if LOG in item.meta}
    names = {item.benchmark for item in items}
    return {name: BENCHMARKS[name] if name in BENCHMARKS and name not in foreign else Benchmark for name in names}


def _read(spec: str, format_: str) -> tuple[list[Item], list[Response]]:
    head, _, path = spec.partition("=")
    side, _, benchmark = head.partition(":")
    if side not in get_args(Side) or not benchmark or not path:
        sides = ", ".join(get_args(Side))
        raise ConfigError(f"{spec!r} must be written SIDE:NAME=FILE, as in harm:jbb=samples.jsonl; sides: {sides}")
    if any(character in benchmark for character in "[]/"):
        raise ConfigError(f"benchmark name {benchmark!r} must not hold '[', ']' or '/'")
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    found: tuple[list[Item], list[Response]] = IMPORTS[format_](file, benchmark, side)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe exchange",
        description="Reads an evaluation and writes it as the log of another tool; or reads such a log, judges its "
        "answers and writes an evaluation.",
        epilog="export DIR --to FORMAT --out DIR [--judge J]; import SIDE:NAME=FILE ... --out DIR [--judge J]",
        allow_abbrev=False,
    )
    ways = parser.add_subparsers(dest="way", required=True)
    export = ways.add_parser(
        "export",
        allow_abbrev=False,
        help="an evaluation as another tool's log",
        epilog="Reads the folder of an evaluation. Writes JSON Lines, one file a set (lmms-eval), or log.json "
        "(inspect). They hold questions and answers in full, harmful ones too.",
    )
    export.add_argument("folder", type=Path, metavar="DIR")
    export.add_argument("--to", required=True, choices=EXPORTS.names())
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument("--judge", help="whose verdicts (default: the one that the folder was made with)")
    bring = ways.add_parser(
        "import",
        allow_abbrev=False,
        help="another tool's log as an evaluation",
        epilog="Reads logs. Writes items.jsonl, responses.jsonl, verdicts.<judge>.jsonl, manifest.json and "
        "metrics.json, which `score`, `compare` and `exchange export` read.",
    )
    bring.add_argument("logs", nargs="+", metavar="SIDE:NAME=FILE", help="side: harm, benign or utility")
    bring.add_argument("--from", choices=IMPORTS.names(), default="lmms-eval")
    bring.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_judge_options(bring)
    return parser
