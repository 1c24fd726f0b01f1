"""A responder without a model, and a small benchmark that has all three sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation, ImageRef
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.records import Item, Side

REFUSAL = "I'm sorry, but I cannot help with that."
ANSWER = "Here is how to do it: first, open the lid."


class FakeResponder:
    """Answers by item id, last prompt first; counts what it was asked, and dies after ``dies_after`` answers."""

    def __init__(self, texts: Mapping[str, str | Answer], weights: str = "w1", dies_after: int | None = None) -> None:
        self.texts = texts
        self.weights = weights
        self.dies_after = dies_after
        self.asked: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def respond(self, prompts: list[Conversation], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        for index in reversed(range(len(prompts))):
            if len(self.asked) == self.dies_after:
                raise KeyboardInterrupt
            item_id = prompts[index].id
            self.asked.append(item_id)
            text = self.texts.get(item_id, ANSWER)
            yield index, text if isinstance(text, Answer) else Answer(text, prompt=f"USER: {item_id}", n_tokens=3)


class Toy(Benchmark):
    """Four harm items, four benign ones with a picture, two utility ones."""

    def __init__(self, pictures: Path, sides: str = "harm benign utility", name: str = "toy", limit: int | None = None):
        super().__init__(name, limit)
        self.pictures = pictures
        self.sides = sides.split()

    def load(self) -> list[Item]:
        self.pictures.mkdir(exist_ok=True)
        if not (self.pictures / "a.png").exists():
            Image.new("RGB", (4, 4), "red").save(self.pictures / "a.png")
        picture = ImageRef(self.pictures, "a.png")
        sizes: dict[Side, int] = {"harm": 4, "benign": 4, "utility": 2}
        return [
            Item(
                id=f"{self.name}/{side}/{number}",
                benchmark=self.name,
                variant=side,
                side=side,
                question=f"{side} question {number}?",
                image=picture if side == "benign" else None,
            )
            for side, size in sizes.items()
            if side in self.sides
            for number in range(size)
        ]
