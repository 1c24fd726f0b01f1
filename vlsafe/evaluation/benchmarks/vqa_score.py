"""VQA's soft accuracy and the normalisation of EvalAI's evaluator, with its quirks: published numbers have them.

Sources: VQA (arXiv 1505.00468) and its public evaluation rules; LLaVA-1.5 and TextVQA put :func:`tokenised` before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_CONTRACTED = (Path(__file__).parent / "contractions.txt").read_text(encoding="utf-8").split()
_STOPS = 32
"""The official code passes a flag where the number of replacements belongs: it deletes at most 32 stops."""


def _without_apostrophes(word: str) -> list[str]:
    places = [place for place, character in enumerate(word) if character == "'"]
    return [
        "".join(character for place, character in enumerate(word) if place not in gone)
        for size in range(1, len(places) + 1)
        for gone in combinations(places, size)
    ]


_CONTRACTIONS = {bare: word for word in _CONTRACTED for bare in _without_apostrophes(word)}


def normalised(text: str) -> str:
    """Punctuation, number words, articles and apostrophes of a short answer, made alike.

    A mark is deleted when it stands next to a space anywhere, or when a digit, a comma and a digit follow each other
    anywhere; else a space takes its place.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    numeric = re.search(r"\d,\d", text) is not None
    marked = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        marked = marked.replace(mark, "" if beside_space or numeric else " ")
    marked = re.sub(r"\.(?!\d)", "", marked, count=_STOPS)
    words = [_WORDS.get(word, word) for word in marked.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def tokenised(text: str) -> str:
    """What TextVQA's evaluator, and LLaVA's, does first."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def soft_accuracy(answer: str, humans: Sequence[str]) -> float:
    """The mean, over each human left out in turn, of min(1, matches among the others / 3): with k matches of 10
    humans 0, .3, .6, .9, 1. Both sides are compared as given."""
    matches = sum(human == answer for human in humans)
    left_out = [matches - (human == answer) for human in humans]
    return sum(min(1.0, count / 3) for count in left_out) / len(humans)
