"""The verb ``compare``: any number of evaluations in one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlsafe.comparison import text
from vlsafe.comparison.page import page
from vlsafe.comparison.runs import read_evaluated
from vlsafe.comparison.speed import over_time
from vlsafe.comparison.table import MARGIN, comparison
from vlsafe.errors import ConfigError
from vlsafe.evaluation.published import rows
from vlsafe.evaluation.records import write_text
from vlsafe.table import Table

FORMATS = Table("format", markdown=text.markdown, latex=text.latex, csv=text.csv_table, html=page, json=text.as_json)
"""Name -> what turns a comparison into text."""

SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html", ".json": "json"}


def main(argv: list[str]) -> int:
    """``compare RUN RUN ... [--out FILE ...]``. Raises VlsafeError; returns the exit status."""
    options = _parser().parse_args(argv)
    if all(path.is_file() and path.suffix == ".json" for path in options.runs):
        return _speeds(options.runs, options.out)
    files = [(path, _format(path)) for path in options.out]
    papers = [each for given in options.paper for each in given.split(",")]
    told = comparison(read_evaluated(options.runs, options.judge), options.baseline, papers, options.margin)
    for path, format_ in files:
        write_text(path, format_(told))
    print(FORMATS[options.format](told), end="")
    for path, _ in files:
        print(f"written: {path}")
    return 0


def _speeds(runs: list[Path], out: list[Path]) -> int:
    told = over_time(runs)
    for path in out:
        if path.suffix != ".md":
            raise ConfigError(f"--out {path}: results of benchmarks are one table; name it .md")
        write_text(path, told)
    print(told, end="")
    return 0


def _format(path: Path) -> Callable[[dict[str, Any]], str]:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--out {path}: the suffix says the format; choose of {', '.join(SUFFIXES)}")
    format_: Callable[[dict[str, Any]], str] = FORMATS[SUFFIXES[path.suffix]]
    return format_


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe compare",
        description="Put evaluations side by side: rates with 95 % intervals, paired differences from a baseline with "
        "Holm's p over all of them, whether utility was kept, and the paper's cells.",
        epilog="Reads evaluation folders (items.jsonl, responses.jsonl, verdicts.<judge>.jsonl), or directories of "
        "runs, of which the evaluation after tuning is read; or JSON files of tests/benchmarks, which are shown over "
        "time. Writes a table on standard output and each FILE whole.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument(
        "--out", type=Path, nargs="+", default=[], metavar="FILE", help=f"files, by suffix: {', '.join(SUFFIXES)}"
    )
    parser.add_argument("--format", default="markdown", choices=FORMATS.names(), help="on standard output")
    parser.add_argument("--baseline", metavar="NAME", help="run that the others are compared with (default: the first)")
    parser.add_argument("--judge", help="whose verdicts (default: the one that the folders were made with)")
    parser.add_argument("--margin", type=float, default=MARGIN, help="points of utility whose loss counts (default: 1)")
    parser.add_argument(
        "--paper", action="append", default=[], metavar="ROW", help=f"columns of published cells: {', '.join(rows())}"
    )
    return parser
