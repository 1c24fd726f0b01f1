"""easy-vqa: simple questions on drawn shapes, each with one right answer; the utility side of a small run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlsafe.conversation import Conversation
from vlsafe.data.sources.easy_vqa import ANSWERS, KINDS, EasyVQASource, Split, Wordings
from vlsafe.evaluation.benchmarks.base import Benchmark, Outcomes
from vlsafe.evaluation.benchmarks.files import require
from vlsafe.evaluation.records import Item, Response, Verdict


class EasyVQA(Benchmark):
    """``path``: a folder with ``<split>/questions.json`` and ``<split>/images/<id>.png``.

    ``wordings: rare`` asks only questions that training on ``common`` ones has not seen.

    Metrics: ``accuracy``; ``majority``, the share of the commonest answer, which is what guessing gives; ``refused``.
    """

    better = Benchmark.better | {"accuracy": "higher", "majority": "higher"}

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "easy_vqa",
        split: Split = "test",
        wordings: Wordings = "all",
        seed: int = 0,
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.split = split
        self.wordings: Wordings = wordings

    def load(self) -> list[Item]:
        require(self.path / self.split / "questions.json", "python -m vlsafe fetch easy-vqa")
        return [self._item(conversation) for conversation in EasyVQASource(self.path, self.split, self.wordings)]

    def _item(self, conversation: Conversation) -> Item:
        question, answer = conversation.turns
        (image,) = conversation.images
        return Item(
            id=f"{self.name}/{conversation.id}",
            benchmark=self.name,
            variant="",
            side="utility",
            question=question.text,
            image=image,
            reference=answer.text,
            group=conversation.tags["kind"],
            cluster=image.name,
        )

    @classmethod
    def outcomes(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> Outcomes:
        outcomes = super().outcomes(items, responses, verdicts)
        # The alphabet breaks ties, so that the order of the items cannot matter.
        counts = Counter(item.reference for item in items)
        commonest = min(counts, key=lambda answer: (-counts[answer], answer))
        for item in items:
            response = responses[item.id]
            right = None if response.error else named_answer(response.text, item.reference) == item.reference
            outcomes.setdefault(f"{item.scope}/accuracy", {})[item.id] = right
            outcomes.setdefault(f"{item.scope}/majority", {})[item.id] = item.reference == commonest
        return outcomes


def named_answer(text: str, reference: str) -> str:
    """The one candidate, of the kind that ``reference`` is, that the text names as a word; "" for none or several."""
    words = set(re.findall(r"[a-z]+", text.lower().replace("grey", "gray")))
    named = words & set(ANSWERS[KINDS[reference]])
    return named.pop() if len(named) == 1 else ""
