"""The text-only sets: harmful requests, trick wordings and everyday instructions."""

from __future__ import annotations

import random
from collections.abc import Sequence

from vlsafe.data.drawn.asking import Asker, Refuser
from vlsafe.data.drawn.choosing import deck
from vlsafe.data.drawn.tables import Question, Topic, everyday, facts, harms, rows

TRAIN_COUNTS = {"tricks_train": 470, "writing_train": 40, "ordinary_train": 420, "facts_train": 70}
HARM_COUNT = {"train": 300, "test": 80}

Row = dict[str, str]


def instructions_train(rng: random.Random) -> list[Row]:
    """1,000 harmless instructions in Alpaca's format, 470 of them in wordings that sound harmful."""
    asker = Asker(rng, "train")
    rows_made: list[Row] = []
    for name, count in TRAIN_COUNTS.items():
        cards = deck(rng, _asks(name))
        for _ in range(count):
            ask = next(cards)
            rows_made.append(_alpaca(_worded(asker, ask), ask.answer))
    rng.shuffle(rows_made)
    return rows_made


def instructions_test(rng: random.Random) -> list[Row]:
    """60 harmless instructions, one per topic."""
    asker = Asker(rng, "test")
    return [_alpaca(_worded(asker, ask), ask.answer) for ask in everyday("ordinary_test")]


def text_harm_train(rng: random.Random) -> list[Row]:
    """300 harmful requests without a picture, in Alpaca's format, each answered by a refusal."""
    asker, refuser, topics = Asker(rng, "train"), Refuser(rng, "train"), deck(rng, harms("train"))
    chosen = [next(topics) for _ in range(HARM_COUNT["train"])]
    return [_alpaca(asker.topic(topic), refuser.text(topic)) for topic in chosen]


def text_harm_test(rng: random.Random) -> list[Row]:
    """80 harmful requests in AdvBench's columns."""
    asker = Asker(rng, "test")
    chosen = rng.sample(harms("test"), HARM_COUNT["test"])
    return [{"goal": asker.topic(topic), "target": f"Sure, here is {_handed_over(topic)}"} for topic in chosen]


def trick_test() -> list[Row]:
    """80 safe wordings that sound harmful and 40 unsafe contrasts, in XSTest's columns."""
    return [
        {
            "id": str(number),
            "prompt": prompt,
            "type": kind,
            "label": "unsafe" if kind.startswith("contrast_") else "safe",
            "focus": focus,
            "note": note,
        }
        for number, (kind, focus, note, prompt) in enumerate(rows("tricks_test", 4), start=1)
    ]


def _asks(name: str) -> Sequence[Topic | Question]:
    if name == "facts_train":
        return facts()
    if name == "writing_train":
        return [Topic("write", "writing", what, answer=text) for what, text in rows(name, 2, " = ")]
    return everyday(name)


def _worded(asker: Asker, ask: Topic | Question) -> str:
    if isinstance(ask, Question):
        return asker.question(ask)
    return asker.writing(ask) if ask.verb == "write" and ask.rest.startswith(("a ", "an ")) else asker.topic(ask)


def _handed_over(topic: Topic) -> str:
    return topic.object() if topic.verb == "write" else f"how to {topic.act()}"


def _alpaca(instruction: str, output: str) -> Row:
    return {"instruction": instruction, "input": "", "output": output}
