"""A source as single exchanges: one question, its answer, and what the source says of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlsafe.conversation import Conversation, ImageRef
from vlsafe.data.sources import SOURCES, open_source, parse_spec
from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges.keyword import KeywordJudge

LABELLER = "vlsafe"
"""The phrase list that tells refusals from answers where a source does not say which is which."""

AS_STORED = {"check_images": False, "two_turn": False}
"""Options that show a source as it is: missing pictures are a finding, not an error, and pairs stay apart."""

_REPEATED = re.compile(r"(.+?)#\d+(/.*)?")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer. ``record`` is what the exchanges about one picture share.

    ``subset``, ``category`` and ``folder`` are empty where the source does not say. ``refuses``: whether the answer is
    meant as a refusal.
    """

    id: str
    record: str
    instruction: str
    response: str
    images: tuple[ImageRef, ...]
    subset: str
    category: str
    folder: str
    refuses: bool


@dataclass(frozen=True, slots=True)
class Audited:
    """A source under audit. ``label`` is its short name in findings: ``train``, ``test``, or its file's name.

    ``labelled``: the source itself says which answers refuse; otherwise the list ``keyword:vlsafe`` was asked.
    """

    label: str
    spec: str
    kind: str
    path: str
    exchanges: tuple[Exchange, ...]
    labelled: bool

    @property
    def records(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.record for each in self.exchanges))


def read_sources(specs: Sequence[str]) -> list[Audited]:
    """Open every ``kind:path[#split]``. Raises ConfigError and DataError as :func:`open_source`."""
    if len(set(specs)) < len(specs):
        raise ConfigError("a source is named twice; name each once, the one to learn from first")
    return [_read(spec, label) for spec, label in zip(specs, _labels(specs), strict=True)]


def original_id(identity: str) -> str:
    """``x#2/safe_safe`` -> ``x/safe_safe``: sources give the second record named ``x`` such a suffix."""
    found = _REPEATED.fullmatch(identity)
    return found.group(1) + (found.group(2) or "") if found else identity


def _labels(specs: Sequence[str]) -> list[str]:
    """The split, else the file's name; where two are the same, a number behind it."""
    labels: list[str] = []
    for spec in specs:
        options = parse_spec(spec)
        wanted = options.get("split") or Path(options["path"]).stem
        same = [label for label in labels if label == wanted or label.startswith(f"{wanted}-")]
        labels.append(f"{wanted}-{len(same) + 1}" if same else wanted)
    return labels


def _read(spec: str, label: str) -> Audited:
    options = parse_spec(spec)
    taken = inspect.signature(SOURCES[options["kind"]]).parameters
    source = open_source(options | {name: value for name, value in AS_STORED.items() if name in taken})
    judge = KeywordJudge(LABELLER)
    exchanges: list[Exchange] = []
    labelled = True
    for conversation in source:
        labelled &= conversation.tags.get("refusal") in ("true", "false")
        exchanges += _exchanges(conversation, judge)
    return Audited(label, spec, options["kind"], options["path"], tuple(exchanges), labelled)


def _exchanges(conversation: Conversation, judge: KeywordJudge) -> list[Exchange]:
    tags, turns = conversation.tags, [turn for turn in conversation.turns if turn.role != "system"]
    subset = tags.get("subset", "")
    record = conversation.id.removesuffix(f"/{subset}") if subset else conversation.id
    category = " / ".join(tags[key] for key in ("category", "subcategory") if tags.get(key))
    folder = tags.get("folder") or _folder(conversation.images)
    pairs = list(zip(turns[::2], turns[1::2], strict=False))
    found = []
    for place, (question, answer) in enumerate(pairs):
        identity = conversation.id if len(pairs) == 1 else f"{conversation.id}[{place}]"
        stated = tags.get("refusal")
        refuses = (
            stated == "true" if stated in ("true", "false") else judge.label_text(answer.text)[0] in REFUSAL_LABELS
        )
        found.append(
            Exchange(
                identity, record, question.text, answer.text, conversation.images, subset, category, folder, refuses
            )
        )
    return found


REFUSAL_LABELS = ("refuse", "safe_comment")
"""Verdicts that count as refused, as in attack success rates."""


def _folder(images: tuple[ImageRef, ...]) -> str:
    return images[0].name.rpartition("/")[0] if images else ""


def picture_name(exchange: Exchange) -> str:
    """The first picture's name inside its data set, or an empty string; a zip file's own top folder left out."""
    if not exchange.images:
        return ""
    name = exchange.images[0].name
    return f"{exchange.folder}/{name.rpartition('/')[2]}" if exchange.folder else name
