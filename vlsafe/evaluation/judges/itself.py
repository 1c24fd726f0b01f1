"""A model does not judge itself: it would forgive what it does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges.weights import folder_digest
from vlsafe.evaluation.records import Response
from vlsafe.fetch.paths import resolved


class WithModel(Protocol):
    """A judge of answers or of pairs; see :class:`~vlsafe.evaluation.judges.base.Judge`."""

    name: str
    weights: str
    served: str


def refuse_itself(judge: WithModel, model: str) -> None:
    """Raises ConfigError where ``model``, as `evaluate` is given it, is the one that judges: the same name, or a
    directory with the same files. ``NAME@URL`` is a served model."""
    name, at, _ = model.rpartition("@")
    if (at and name == judge.served != "") or (judge.weights and _same(judge.weights, model)):
        raise _refusal(judge, model)


def refuse_judged(judge: WithModel, responses: Iterable[Response]) -> None:
    """Raises ConfigError where some of the answers are those of the served model that judges."""
    if judge.served and any(response.model.get("served") == judge.served for response in responses):
        raise _refusal(judge, judge.served)


def _refusal(judge: WithModel, model: str) -> ConfigError:
    return ConfigError(f"{model!r} would judge itself, by {judge.name}; choose a judge that is another model")


def _same(one: str, other: str) -> bool:
    places = [Path(resolved(each)) for each in (one, other)]
    if all(place.is_dir() for place in places):
        return places[0].samefile(places[1]) or folder_digest(places[0]) == folder_digest(places[1])
    return one == other
