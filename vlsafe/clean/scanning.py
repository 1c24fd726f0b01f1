"""Judging every record of a source: in batches, in shards, and each only once, whatever kills the run.

Findings are appended as JSON Lines, one file for each shard. A run reads those of all shards first, so that a resumed
scan, also one with another number of shards, judges what is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from vlsafe.conversation import Conversation
from vlsafe.data.sources.base import Source
from vlsafe.evaluation.benchmarks.base import REFUSED
from vlsafe.evaluation.judges.base import Exchange, Judge, Ruling
from vlsafe.evaluation.records import Item, Label, Response, append_jsonl, read_jsonl

BATCH = 256
"""Records that are judged between two writes: what a kill can cost."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a judge says of one record: of its worst exchange. ``number`` is the record's place in its file; ``group``
    the category that the data name, ``category`` the one that the judge names; ``basis`` hashes judge and texts."""

    number: int
    id: str
    source: str
    group: str
    label: Label
    score: float | None
    category: str
    reason: str
    judge: str
    basis: str


@dataclass(frozen=True, slots=True)
class Shard:
    """The records ``index``, ``index + count``, ``index + 2 count``, ..."""

    index: int = 0
    count: int = 1


def harmful(finding: Finding, threshold: float) -> bool:
    """By the judge's probability of harm where it has one; else an answer that refuses points to a harmful request."""
    return finding.label in REFUSED if finding.score is None else finding.score >= threshold


def scan(source: Source, judge: Judge, out: Path, shard: Shard) -> None:
    """Judge what the shard's records lack, and append it to ``out``. Raises what the judge raises; findings stay."""
    done = {number: each.basis for number, each in read_findings(out).items() if each.label != "error"}
    numbers = range(shard.index, len(source), shard.count)
    file = out / f"verdicts.{shard.index}-of-{shard.count}.jsonl"
    waiting: list[tuple[int, Conversation, str]] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("records", total=len(numbers))
        for number in numbers:
            conversation = source[number]
            basis = basis_of(conversation, judge)
            if done.get(number) == basis:
                progress.advance(task)
                continue
            waiting.append((number, conversation, basis))
            if len(waiting) == BATCH:
                append_jsonl(file, _findings(waiting, judge))  # type: ignore[arg-type]
                progress.advance(task, len(waiting))
                waiting = []
        if waiting:
            append_jsonl(file, _findings(waiting, judge))  # type: ignore[arg-type]


def read_findings(out: Path) -> dict[int, Finding]:
    """The findings of all shards by the record's number; of several on one record the last that is no error."""
    found: dict[int, Finding] = {}
    for file in sorted(out.glob("verdicts.*-of-*.jsonl")):
        for finding in read_jsonl(file, Finding):  # type: ignore[type-var]
            if finding.label != "error" or finding.number not in found:
                found[finding.number] = finding
    return found


def complete(source: Source, judge: Judge, out: Path) -> tuple[dict[int, Finding], int]:
    """The findings that hold for this source and judge, and how many records still have none."""
    found = read_findings(out)
    valid = {
        number: found[number]
        for number in range(len(source))
        if number in found and found[number].basis == basis_of(source[number], judge)
    }
    return valid, len(source) - len(valid)


def basis_of(conversation: Conversation, judge: Judge) -> str:
    """Hash of the judge and of all that it reads of a record: a finding holds as long as this does."""
    texts = [(item.question, response.text) for response, item in exchanges_of(conversation)]
    return hashlib.sha256(json.dumps([judge.name, judge.version, conversation.id, texts]).encode()).hexdigest()


def exchanges_of(conversation: Conversation) -> list[Exchange]:
    """Each answer with the question before it. Side ``utility``: an instruction set is there to be answered."""
    question = ""
    found: list[Exchange] = []
    for turn in conversation.turns:
        if turn.role == "user":
            question = turn.text
        elif turn.role == "assistant":
            name = f"{conversation.id}#{len(found)}"
            item = Item(name, conversation.source, "", "utility", question)
            found.append((Response(name, name, "", "", question, turn.text, "", 0, "eos", "", "", {}, {}), item))
    return found


def _findings(batch: Sequence[tuple[int, Conversation, str]], judge: Judge) -> list[Finding]:
    owned = [(number, each) for number, conversation, _ in batch for each in exchanges_of(conversation)]
    with_text = [(number, each) for number, each in owned if each[0].text.strip()]
    rulings: dict[int, list[Ruling]] = {}
    for (number, _), ruling in zip(with_text, judge.rulings([each for _, each in with_text]), strict=True):
        rulings.setdefault(number, []).append(ruling)
    return list(_worst(batch, rulings, judge))


def _worst(
    batch: Sequence[tuple[int, Conversation, str]], rulings: Mapping[int, list[Ruling]], judge: Judge
) -> Iterator[Finding]:
    for number, conversation, basis in batch:
        ruling = max(rulings.get(number, [Ruling("invalid", "no answer with text")]), key=_severity)
        yield Finding(
            number,
            conversation.id,
            _origin(conversation),
            conversation.tags.get("category", ""),
            ruling.label,
            ruling.score,
            ruling.category,
            ruling.why,
            judge.name,
            basis,
        )


def _severity(ruling: Ruling) -> float:
    """An exchange without a verdict leaves the whole record without one: it could be the harmful one."""
    if ruling.label == "error":
        return 2.0
    return float(ruling.label in REFUSED) if ruling.score is None else ruling.score


def _origin(conversation: Conversation) -> str:
    """Mixed sets keep the pictures of each of their sources in a folder of its own."""
    if not conversation.images:
        return "text only"
    return conversation.images[0].name.rpartition("/")[0].partition("/")[0] or "pictures"
