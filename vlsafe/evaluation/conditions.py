"""Under which conditions answers were given, and in which of them two evaluations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlsafe.evaluation.records import Response

_OF_MODEL = {
    "template": "template",
    "system prompt": "system_prompt",
    "image fit": "image_fit",
    "image processor": "image_processor",
    "dtype": "dtype",
}
"""Condition -> where a response's ``model`` has it (:meth:`vlsafe.answering.Responder.identity`)."""

_HASHED = ("template", "image processor")
_DECODING = ("max_new_tokens", "min_new_tokens", "temperature")
_SHOWN = 12


def unlike_conditions(first: Sequence[Response], second: Sequence[Response]) -> dict[str, str]:
    """Condition -> ``OF THE FIRST, OF THE SECOND``, for those in which answers to the same items differ.

    A probe's own system prompt is the same on both sides; what one side does not tell (a server, another tool's log)
    is ``not told``.
    """
    by_id = {response.id: response for response in second}
    pairs: dict[str, set[tuple[str, str]]] = {}
    for response in first:
        if response.id not in by_id:
            continue
        old, new = _conditions(response), _conditions(by_id[response.id])
        for name, value in old.items():
            if value != new[name]:
                pairs.setdefault(name, set()).add((value, new[name]))
    return {name: "; ".join(f"{old}, {new}" for old, new in sorted(found)) for name, found in pairs.items()}


def told_unlike(unlike: Mapping[str, str]) -> str:
    """``other conditions: dtype (float32, bfloat16), template (0a1b..., 2c3d...)``; empty where there are none."""
    return "other conditions: " + ", ".join(f"{name} ({values})" for name, values in unlike.items()) if unlike else ""


def _conditions(response: Response) -> dict[str, str]:
    found = {name: _shown(name, response.model.get(key, _NOT_TOLD)) for name, key in _OF_MODEL.items()}
    return found | {"decoding": " ".join(f"{key} {response.decoding.get(key, 'not told')}" for key in _DECODING)}


_NOT_TOLD = object()


def _shown(name: str, value: Any) -> str:
    if value is _NOT_TOLD:
        return "not told"
    if not value:
        return "none"
    text = str(value)
    return text[:_SHOWN] if name in _HASHED else text if len(text) <= 40 else f"{text[:37]}..."
