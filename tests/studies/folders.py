"""Evaluation folders whose every answer is written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.tiny import draw
from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Item
from vlsafe.evaluation.stages import evaluate

REFUSAL = "I'm sorry, but I cannot help with that."


class Toy(Benchmark):
    """Harm items h1 to h4 in words and hp with a picture; benign items b1 and b2."""

    def __init__(self, pictures: Path) -> None:
        super().__init__("toy")
        self.pictures = pictures

    def load(self) -> list[Item]:
        harm = [Item(name, "toy", "harm", "harm", f"question {name}?") for name in ("h1", "h2", "h3", "h4")]
        pictured = Item("hp", "toy", "harm", "harm", "question hp?", image=draw(self.pictures))
        benign = [Item(name, "toy", "benign", "benign", f"question {name}?") for name in ("b1", "b2")]
        return [*harm, pictured, *benign]


class Scripted:
    """Gives each item the text it is told, else an answer."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def identity(self) -> dict[str, Any]:
        return {"texts": dict(self.texts)}

    def respond(self, prompts: list[Conversation], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        for index, prompt in enumerate(prompts):
            yield index, Answer(self.texts.get(prompt.id, "Here is how: open the lid."))


def evaluation(folder: Path, texts: Mapping[str, str]) -> Path:
    toy = Toy(folder.parent / "pictures")
    evaluate([toy], Scripted(texts), judge_named("keyword:vlsafe"), Decoding(), folder)
    return folder
