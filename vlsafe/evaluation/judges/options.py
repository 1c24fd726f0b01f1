"""Which judge, on a command line: ``--judge NAME`` and ``--judge-option KEY=VALUE``."""

from __future__ import annotations

import argparse
from typing import Any

from omegaconf import OmegaConf

from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges import DEFAULT_JUDGE, JUDGES, grader_named, judge_named, pair_judge_named
from vlsafe.evaluation.judges.api import ApiGrader
from vlsafe.evaluation.judges.base import Judge
from vlsafe.evaluation.pairs import PairJudge


def add_judge_options(parser: argparse.ArgumentParser, default: str | None = DEFAULT_JUDGE) -> None:
    """``default``: None where a suite may name the judge."""
    told = DEFAULT_JUDGE if default else f"the suite's, else {DEFAULT_JUDGE}"
    parser.add_argument(
        "--judge",
        default=default,
        help=f"one of {', '.join(JUDGES)} (default: {told}); * is a model, docs/judges.md shows how",
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
    return judge_named({"name": options.judge} | _given(options.judge_option, "--judge-option"))


def chosen_pair_judge(options: argparse.Namespace) -> PairJudge | None:
    """None where none was asked for. Raises as :func:`chosen_judge`."""
    given = _given(options.pair_judge_option, "--pair-judge-option")
    return pair_judge_named({"name": options.pair_judge} | given) if options.pair_judge else None


def chosen_grader(options: argparse.Namespace) -> ApiGrader:
    """Raises as :func:`chosen_judge`."""
    return grader_named({"name": options.grader} | _given(options.grader_option, "--grader-option"))


def _given(pairs: list[str], flag: str) -> dict[str, Any]:
    wrong = [text for text in pairs if "=" not in text]
    if wrong:
        raise ConfigError(f"{flag} {wrong[0]!r} must be written KEY=VALUE")
    given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(pairs))
    return dict(given)
