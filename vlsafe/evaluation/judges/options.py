"""Which judge, on a command line: ``--judge NAME`` and ``--judge-option KEY=VALUE``."""

from __future__ import annotations

import argparse
from typing import Any

from omegaconf import OmegaConf

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
        help="an option of the judge, as in batch_size=32 or labels.TOXIC=comply; may be repeated",
    )


def chosen_judge(options: argparse.Namespace) -> Judge:
    """Raises ConfigError for an unknown name, option or value."""
    wrong = [text for text in options.judge_option if "=" not in text]
    if wrong:
        raise ConfigError(f"--judge-option {wrong[0]!r} must be written KEY=VALUE")
    given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(options.judge_option))
    return judge_named({"name": options.judge} | given)
