"""Answers and verdicts by item id, for metrics without a model or a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlsafe.evaluation.records import Item, Label, Response, Verdict

FAILED = "\0"
"""A text that stands for a generation that failed."""


def answered(
    items: Sequence[Item], texts: Mapping[str, str], labels: Mapping[str, Label] | None = None
) -> tuple[dict[str, Response], dict[str, Verdict]]:
    """``texts`` and ``labels`` by item id; without one the text is empty, the label comply."""
    responses = {}
    for item in items:
        text = texts.get(item.id, "")
        error = "boom" if text == FAILED else ""
        responses[item.id] = Response(
            "k", item.id, item.benchmark, "", item.question, "" if error else text, "", 1, "eos", error, "", {}, {}
        )
    verdicts = {
        item.id: Verdict(
            "k", item.id, "error" if responses[item.id].error else (labels or {}).get(item.id, "comply"), "fake"
        )
        for item in items
    }
    return responses, verdicts
