"""Reading short answers: a letter, yes or no, a phrase. What cannot be read is wrong and counted, never guessed."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from vlsafe.evaluation.benchmarks.base import Benchmark, Outcomes
from vlsafe.evaluation.records import Item, Response, Verdict

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""LLaVA-1.5's suffix for VQAv2, TextVQA, VizWiz and MME."""
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
"""LLaVA-1.5's suffix for ScienceQA and MMBench."""
LETTERS = "ABCDEFGHIJ"


class ShortAnswers(Benchmark):
    """A benchmark with one right answer an item, ``reference``.

    Metrics: ``accuracy``; ``unparsed``, the share of answers that could not be read (they are wrong); ``refused``.
    """

    better = Benchmark.better | {"accuracy": "higher", "unparsed": "lower"}

    @classmethod
    @abstractmethod
    def read(cls, item: Item, text: str) -> str:
        """The answer that ``text`` gives, to be compared with ``item.reference``; "" where it gives none."""

    @classmethod
    def outcomes(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> Outcomes:
        outcomes = super().outcomes(items, responses, verdicts)
        for item in items:
            response = responses[item.id]
            answer = None if response.error else cls.read(item, response.text)
            for scope in cls.scopes(item):
                right, unread = (None, None) if answer is None else (answer == item.reference, not answer)
                outcomes.setdefault(f"{scope}/accuracy", {})[item.id] = right
                outcomes.setdefault(f"{scope}/unparsed", {})[item.id] = unread
        return outcomes

    @classmethod
    def scopes(cls, item: Item) -> tuple[str, ...]:
        """Whose metrics an item counts for."""
        return (item.scope,)


def yes_or_no(text: str) -> str:
    """``yes``, ``no``, or "" for anything else, also for both. The first word decides, else the first sentence.

    LLaVA's rule reads whatever has no "no" in it as yes, so that a refusal is one; a strict comparison fails at "Yes.".
    """
    words = re.findall(r"[a-z]+", text.lower())
    if words and words[0] in ("yes", "no"):
        return words[0]
    named = {"yes", "no"} & set(re.findall(r"[a-z]+", text.lower().split(".")[0]))
    return named.pop() if len(named) == 1 else ""


def letter(text: str, options: Sequence[str]) -> str:
    """The letter of the one option that ``text`` chooses, or "".

    In this order: nothing but a letter (``B``, ``(B)``, ``B.``); a letter with a stop or bracket in front (``B. the
    dog``); one "answer is B"; exactly one option letter as a word among the first or last four words, where a capital A
    that begins the text is an article; exactly one option's text in the answer.
    """
    letters = LETTERS[: len(options)]
    stripped = text.strip()
    for pattern in (rf"^\(?([{letters}])[).:]?$", rf"^\(?([{letters}])[).:](?:\s|$)"):
        if found := re.search(pattern, stripped):
            return found[1]
    said = set(re.findall(rf"answer is:? \(?([{letters}])\b", stripped))
    if len(said) == 1:
        return said.pop()
    words = [word.strip("().,:;!?\"'*") for word in stripped.split()]
    near = {place for place in range(len(words)) if place < 4 or place >= len(words) - 4}
    article = 0 if len(words) > 1 and words[0] == "A" else -1
    named = {words[place] for place in near if place != article and words[place] in tuple(letters)}
    if len(named) == 1:
        return named.pop()
    told = [
        choice
        for choice, option in zip(letters, options, strict=False)
        if option.strip() and re.search(rf"(?<!\w){re.escape(option.strip().lower())}(?!\w)", stripped.lower())
    ]
    return told[0] if len(told) == 1 and not named else ""


def listed(options: Sequence[str]) -> str:
    """``A. first`` and so on, one a line."""
    return "\n".join(f"{choice}. {option}" for choice, option in zip(LETTERS, options, strict=False))
