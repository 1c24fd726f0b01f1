"""Example answers of a run: which ones are shown, and how: harm-side ones cut short and folded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from vlsafe.errors import DataError
from vlsafe.evaluation import markup
from vlsafe.evaluation import report_text as words
from vlsafe.evaluation.folder import Folder
from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.records import Item, Response, Verdict

_MOST_CHARACTERS = {"harm": 160, "benign": 600, "utility": 600}

# Labels as wished and not as wished on each side; a label in neither is shown plainly.
_WISHED = {"harm": ("refuse", "safe_comment"), "benign": ("comply",), "utility": ()}
_UNWISHED = {"harm": ("comply", "partial"), "benign": ("refuse", "partial"), "utility": ("refuse", "partial")}
_LABEL_WORDS = {
    "comply": "answered",
    "refuse": "refused",
    "partial": "answered in part",
    "safe_comment": "safe comment",
    "irrelevant": "off the point",
    "invalid": "no usable answer",
    "error": "judge failed",
    "": "not judged",
}


def folder_examples(first: Folder | None, last: Folder) -> list[dict[str, Any]]:
    """:func:`examples` of one evaluation, or of two of the same items."""
    before, verdicts_before = (first.responses, first.verdicts) if first else ([], [])
    return examples(last.items, before, last.responses, verdicts_before, last.verdicts)


def examples(
    items: Sequence[Item],
    before: Sequence[Response],
    after: Sequence[Response],
    verdicts_before: Sequence[Verdict],
    verdicts_after: Sequence[Verdict],
    per_scope: int = 3,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Up to ``per_scope`` items of each scope with their answers, those whose label changed first.

    The draw depends on ``seed`` and the items' ids, not on their order. Without a before side, pass it empty.
    Texts are cut here already, so that ``report.json`` can be shared too. Raises DataError when an item has no answer.
    """
    sides = {"before": _answers(before, verdicts_before)} if before else {}
    sides["after"] = _answers(after, verdicts_after)
    missing = [
        f"item {item.id!r} has no response {name} tuning"
        for item in items
        for name in sides
        if item.id not in sides[name]
    ]
    if missing:
        raise DataError([f"{problem}; run the evaluation again" for problem in missing])

    def rank(item: Item) -> tuple[bool, str]:
        labels = {answers[item.id]["label"] for answers in sides.values()}
        return len(labels) == 1, hashlib.sha256(f"{seed}:{item.id}".encode()).hexdigest()

    chosen: list[dict[str, Any]] = []
    for scope in dict.fromkeys(item.scope for item in items):
        ranked = sorted((item for item in items if item.scope == scope), key=rank)
        chosen += [
            _row(item, {name: answers[item.id] for name, answers in sides.items()}) for item in ranked[:per_scope]
        ]
    return chosen


def _answers(responses: Sequence[Response], verdicts: Sequence[Verdict]) -> dict[str, dict[str, str]]:
    """Item id -> its text and label; the label is empty where no judge has spoken."""
    labels: dict[str, str] = {verdict.key: verdict.label for verdict in verdicts}
    return {
        response.id: {"text": response.text or response.error, "label": labels.get(response.key, "")}
        for response in responses
    }


def _row(item: Item, sides: dict[str, dict[str, str]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": item.id,
        "scope": item.scope,
        "side": item.side,
        "question": cut_for(item.side, item.question),
    }
    if item.reference:
        row["reference"] = item.reference
    return row | {name: answer | {"text": cut_for(item.side, answer["text"])} for name, answer in sides.items()}


def cut_for(side: str, text: str) -> str:
    """Harm-side texts short, the others as long as a page has room for."""
    return words.cut(text, _MOST_CHARACTERS[side])


def examples_section(report: dict[str, Any]) -> str:
    """The examples of a report by side; empty when it has none."""
    groups = []
    for side in words.SIDES:
        shown = [
            example_card(example, opened=side != "harm") for example in report["examples"] if example["side"] == side
        ]
        if shown:
            groups.append(f"<h3>{words.SIDE_TITLES[side]}</h3>{''.join(shown)}")
    told = markup.legend(
        "A seeded draw that takes answers whose label changed first, so it does not show how often anything happens. "
        f"Harm-side answers are folded and cut to {_MOST_CHARACTERS['harm']} characters. Pictures are left out; an id "
        "leads to its item in <code>items.jsonl</code>."
    )
    return markup.section("Example answers", told + "".join(groups)) if groups else ""


def example_card(example: dict[str, Any], opened: bool) -> str:
    """One item with its answers before and after, cut by side, folded unless ``opened``."""
    side, most = example["side"], _MOST_CHARACTERS[example["side"]]
    answers = [(when, example[when]) for when in ("before", "after") if when in example]
    arrow = ' <span aria-hidden="true">→</span><span class="sr">then</span> '
    chips = arrow.join(_label_chip(side, answer["label"]) for _, answer in answers)
    quoted = "".join(_answer(when, answer["text"], most) for when, answer in answers)
    reference = example.get("reference")
    right = f'<p class="reference">Right answer: <b>{safe(reference)}</b></p>' if reference else ""
    return (
        f"<details{' open' if opened else ''}><summary>"
        f'<span class="question" dir="auto">{safe(words.cut(example["question"], most))}</span>'
        f'<span class="chips">{chips}</span></summary>{right}<div class="answers">{quoted}</div>'
        f'<p class="id">{safe(example["scope"])} · {safe(example["id"])}</p></details>'
    )


def _answer(when: str, text: str, most: int) -> str:
    shown = safe(words.cut(text, most)) if text.strip() else "<i>empty answer</i>"
    return f'<div><h4>{when.capitalize()}</h4><blockquote dir="auto">{shown}</blockquote></div>'


def _label_chip(side: str, label: str) -> str:
    shown = _LABEL_WORDS.get(label, label)
    if label in _WISHED[side]:
        return markup.chip("better", f"✓ {shown}")
    if label in _UNWISHED[side]:
        return markup.chip("worse", f"✗ {shown}")
    return markup.chip("plain", shown)
