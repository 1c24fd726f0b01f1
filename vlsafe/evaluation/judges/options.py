"""Which judge, on a command line: ``--judge NAME`` and ``--judge-option KEY=VALUE``."""

from __future__ import annotations

import argparse
from typing import Any

import yaml

from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges import DEFAULT_JUDGE, JUDGES, judge_named
from vlsafe.evaluation.judges.base import Judge


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        default=DEFAULT_JUDGE,
        help=f"one of {', '.join(JUDGES)} (default: {DEFAULT_JUDGE}); * is a model, docs/judges.md shows how",
    )
    parser.add_argument(
        "--judge-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the judge, its value as YAML; may be repeated",
    )


def chosen_judge(options: argparse.Namespace) -> Judge:
    """Raises ConfigError for an unknown name, option or value."""
    pairs: dict[str, Any] = {}
    for text in options.judge_option:
        key, mark, value = text.partition("=")
        if not mark:
            raise ConfigError(f"--judge-option {text!r} must be written KEY=VALUE")
        pairs[key] = yaml.safe_load(value)
    return judge_named({"name": options.judge} | pairs)
