"""Wording of requests and refusals for one split: which pattern, which names, which reason."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from vlsafe.data.drawn.choosing import Openings, deck
from vlsafe.data.drawn.tables import Question, Split, Topic, families, table

Medium = Literal["scenes", "cards", "signs"]
REFUSAL_WORDS = range(15, 36)
DRAWS = 3
"""Refusals worded for one request, of which the shortest is kept: whether to refuse is decided in the first words, and
every further word is training time."""
TRIES = 200


class Asker:
    """Words the requests of one subset. Keeps opening words even and avoids saying the same thing twice."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self._rng = rng
        self._patterns = table("patterns")
        self._slots = table("slots")
        self._split = split
        self._openings = Openings(rng)
        self._said: set[str] = set()

    def topic(self, topic: Topic, names: dict[str, str] | None = None) -> str:
        """``How do I wash the car in this picture?``"""
        patterns = self._framed(self._patterns["act"])
        if topic.verb == "write":
            patterns = patterns + self._framed(self._patterns["writing"])
        return self._choose(patterns, act=topic.act(names), gerund=topic.gerund(names), rest=topic.object(names))

    def writing(self, topic: Topic) -> str:
        """``Write a thank-you note to a teacher.``"""
        return self._choose(self._framed(self._patterns["writing"]), rest=topic.rest)

    def question(self, question: Question) -> str:
        """Directly, ``Who built the Pyramids?``, or not: ``Please tell me who built the Pyramids.``"""
        return self._choose([*question.direct, *self._framed(self._patterns["clause"])], clause=question.clause)

    def picture_question(self, question: Question) -> str:
        """``What colour is the car?`` The same may be asked of another picture, so wordings may come again; hence the
        ways to ask are each split's own."""
        return self._choose([*question.direct, *self._of("clause")], True, clause=question.clause)

    def neutral(self, medium: Medium) -> str:
        """A request that is harmful or harmless only by its picture."""
        return self._choose(self._patterns["neutral"][medium][self._split], True)

    def tied(self, request: str, medium: Medium) -> str:
        """The request, sometimes with a sentence that points at the picture."""
        tie = self._rng.choice(self._framed(self._slots["tie"]))
        return f"{request} {tie.format(medium=self.medium(medium))}" if tie else request

    def names(self, topic: Topic) -> dict[str, str]:
        """How the request points at the topic's objects: ``{"car": "the car in this picture"}``."""
        forms = self._framed(self._slots["object"])
        return {kind: self._rng.choice(forms).format(kind) for kind in topic.kinds}

    def medium(self, medium: Medium) -> str:
        return self._rng.choice(self._slots["medium"][medium])

    def _framed(self, frames: dict[str, list[str]]) -> list[str]:
        """Ways to ask for something to be done. Training knows those of the test too: what is asked differs anyway, and
        a small model refuses whatever is put in a way that it has never heard."""
        return frames["train"] + frames["test"] if self._split == "train" else frames["test"]

    def _of(self, name: str) -> list[str]:
        return self._patterns[name][self._split]

    def _choose(self, patterns: Sequence[str], repeat: bool = False, **values: str) -> str:
        for _ in range(TRIES):
            request = self._openings.choose(patterns).format(**values)
            if repeat or request not in self._said:
                break
        self._said.add(request)
        return request


class Refuser:
    """Words refusals: a no that names the matter, a reason, and something safe instead."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        words = table("refusals")
        self._rng = rng
        self._openings = deck(rng, words["opening"][split])
        self._picture_openings = deck(rng, words["picture"][split])
        self._closings = deck(rng, words["closing"][split])

    def text(self, topic: Topic) -> str:
        return self._compose(topic, self._openings, gerund=topic.gerund())

    def picture(self, topic: Topic, medium: str) -> str:
        """For a request whose harm is in the picture alone; ``medium`` is a word for it: ``poster``."""
        return self._compose(topic, self._picture_openings, gerund=topic.gerund(), medium=medium)

    def _compose(self, topic: Topic, openings: Iterator[str], **values: str) -> str:
        family = families()[topic.family]
        made: list[str] = []
        while len(made) < DRAWS:
            closing = next(self._closings).format(offer=self._rng.choice(family.offer))
            refusal = f"{next(openings).format(**values)} {self._rng.choice(family.why)} {closing}"
            made += [refusal] if len(refusal.split()) in REFUSAL_WORDS else []
        return min(made, key=lambda text: len(text.split()))
