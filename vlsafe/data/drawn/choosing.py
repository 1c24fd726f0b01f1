"""Seeded choice: even use of topics and of opening words, so that neither gives the answer away."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# How often a request opens with these words, against 1 for any other: people do ask "how" and "what" more often.
OPENING_WEIGHTS = {"how": 2.5, "what": 2.5, "can": 1.5, "who": 0.5, "when": 0.5, "why": 0.5}


def deck(rng: random.Random, cards: Sequence[T]) -> Iterator[T]:
    """The cards in shuffled order, again and again, so that each is used as often as any other."""
    while True:
        order = list(cards)
        rng.shuffle(order)
        yield from order


def opening_word(text: str) -> str:
    """The first word, lower-cased: what an image-blind classifier of VLGuard needs no more than."""
    found = re.search(r"[\w']+", text.lower())
    return found[0] if found else ""


class Openings:
    """Chooses among ways to ask so that each opening word keeps its share within one subset."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._words: Counter[str] = Counter()
        self._patterns: Counter[str] = Counter()

    def choose(self, patterns: Sequence[str]) -> str:
        """The least used opening word, then its least used pattern; ties fall at random."""
        candidates = list(patterns)
        self._rng.shuffle(candidates)
        chosen = min(candidates, key=lambda p: (self._load(opening_word(p)), self._patterns[p]))
        self._words[opening_word(chosen)] += 1
        self._patterns[chosen] += 1
        return chosen

    def _load(self, word: str) -> float:
        return self._words[word] / OPENING_WEIGHTS.get(word, 1.0)
