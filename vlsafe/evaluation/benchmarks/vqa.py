"""VQAv2, TextVQA and VizWiz: open questions with ten human answers, scored by soft accuracy."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vlsafe.conversation import ImageRef
from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.answers import SHORT_ANSWER
from vlsafe.evaluation.benchmarks.base import Benchmark, Outcomes
from vlsafe.evaluation.benchmarks.files import read_json
from vlsafe.evaluation.benchmarks.vqa_score import normalised, soft_accuracy, tokenised
from vlsafe.evaluation.records import Item, Response, Verdict
from vlsafe.evaluation.tallies import Tally, mean
from vlsafe.fetch.paths import resolved

Normalisation = Literal["always", "unless_equal", "textvqa"]
"""``unless_equal``: VQAv2's official rule, which compares untouched text where all ten humans agree; ``textvqa``:
tokenised first, then always. Tools differ here, so the metric's name says which."""


class VQA(Benchmark):
    """Metrics: ``accuracy`` (soft), ``refused``. Answers have at most 128 new tokens, as LLaVA-1.5's."""

    better = Benchmark.better | {"accuracy": "higher", "accuracy_answerable": "higher", "unanswerable": "lower"}
    normalisation: Normalisation = "always"
    instruction = SHORT_ANSWER

    def __init__(
        self, path: str | Path, limit: int | None, name: str, seed: int, split: str, pictures: str | Path
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.split = split
        self._pictures = pictures

    @abstractmethod
    def rows(self) -> Iterator[tuple[str, str, str, list[str], dict[str, str]]]:
        """Id, picture, question, human answers and ``meta`` of each question."""

    @property
    def pictures(self) -> Path:
        return Path(resolved(str(self._pictures)))

    def load(self) -> list[Item]:
        root = self.pictures
        try:
            rows = list(self.rows())
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.path}: a record lacks {error}, or is no record; is this the right file?") from error
        return [
            Item(
                id=f"{self.name}/{self.split}/{number}",
                benchmark=self.name,
                variant=f"{self.split},normalise={self.normalisation}",
                side="utility",
                question=f"{question}{self.instruction}",
                image=ImageRef(root, image),
                reference=json.dumps(answers, ensure_ascii=False),
                cluster=image,
                meta=meta | {"normalise": self.normalisation},
                max_new_tokens=128,
            )
            for number, image, question, answers, meta in rows
        ]

    @classmethod
    def tallies(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> dict[str, Tally]:
        scopes = {item.scope for item in items}
        members = {scope: [item for item in items if item.scope == scope] for scope in sorted(scopes)}
        scores = {item.id: scored(item, responses[item.id]) for item in items}
        return {f"{scope}/accuracy": mean(each, scores) for scope, each in members.items()}


def scored(item: Item, response: Response) -> float | None:
    """The soft accuracy of one answer; None where none was made."""
    if response.error:
        return None
    humans, rule, text = json.loads(item.reference), item.meta["normalise"], response.text
    if rule == "unless_equal" and len(set(humans)) == 1:
        return soft_accuracy(_one_line(text), [_one_line(human) for human in humans])
    if rule == "textvqa":
        return soft_accuracy(normalised(tokenised(text)), [normalised(tokenised(human)) for human in humans])
    return soft_accuracy(normalised(text), [normalised(human) for human in humans])


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


class VQAv2(VQA):
    """VQAv2 val (arXiv 1612.00837): 214,354 questions. ``path``: the folder with the authors' two files; ``pictures``:
    COCO's val2014. Scored by the official rule (``unless_equal``)."""

    normalisation = "unless_equal"

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "vqav2",
        seed: int = 0,
        pictures: str | Path = "cache:coco-val2014/val2014",
    ) -> None:
        super().__init__(path, limit, name, seed, "val", pictures)

    def rows(self) -> Iterator[tuple[str, str, str, list[str], dict[str, str]]]:
        get = "python -m vlsafe fetch vqav2-val coco-val2014"
        asked = read_json(self.path / "v2_OpenEnded_mscoco_val2014_questions.json", get)["questions"]
        told = read_json(self.path / "v2_mscoco_val2014_annotations.json", get)["annotations"]
        answers = {row["question_id"]: [answer["answer"] for answer in row["answers"]] for row in told}
        for row in asked:
            image = f"COCO_val2014_{row['image_id']:012d}.jpg"
            yield str(row["question_id"]), image, row["question"], answers[row["question_id"]], {}


class TextVQA(VQA):
    """TextVQA val (arXiv 1904.08920): 5,000 questions. ``path``: ``TextVQA_0.5.1_val.json``.

    Without LLaVA-1.5's hint of OCR tokens, which lifts it from about 45 to 58: the hint reads for the model.
    """

    normalisation = "textvqa"

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "textvqa",
        seed: int = 0,
        pictures: str | Path = "cache:textvqa-images/train_images",
    ) -> None:
        super().__init__(path, limit, name, seed, "val", pictures)

    def rows(self) -> Iterator[tuple[str, str, str, list[str], dict[str, str]]]:
        for row in read_json(self.path, "python -m vlsafe fetch textvqa-val textvqa-images")["data"]:
            yield str(row["question_id"]), f"{row['image_id']}.jpg", row["question"], row["answers"], {}


class VizWiz(VQA):
    """VizWiz val (arXiv 1802.08218): 4,319 questions of blind people; the paper reports val, LLaVA the test server.

    ``path``: a folder with ``val.json`` and ``val/``. "Unanswerable" is a right answer of many, so that refusing more
    can score more: ``accuracy_answerable`` leaves those out, and ``unanswerable`` is how often the model says it.
    """

    normalisation = "textvqa"
    instruction = f"\nWhen the provided information is insufficient, respond with 'Unanswerable'.{SHORT_ANSWER}"

    def __init__(self, path: str | Path, limit: int | None = None, name: str = "vizwiz", seed: int = 0) -> None:
        super().__init__(path, limit, name, seed, "val", "")

    @property
    def pictures(self) -> Path:
        return self.path / "val"

    def rows(self) -> Iterator[tuple[str, str, str, list[str], dict[str, str]]]:
        rows: list[dict[str, Any]] = read_json(self.path / "val.json", "python -m vlsafe fetch vizwiz")
        for row in rows:
            answers = [answer["answer"] for answer in row["answers"]]
            yield row["image"], row["image"], row["question"], answers, {"answerable": str(row["answerable"])}

    @classmethod
    def outcomes(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> Outcomes:
        outcomes = super().outcomes(items, responses, verdicts)
        for item in items:
            response = responses[item.id]
            said = None if response.error else normalised(response.text) == "unanswerable"
            outcomes.setdefault(f"{item.scope}/unanswerable", {})[item.id] = said
        return outcomes

    @classmethod
    def tallies(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> dict[str, Tally]:
        answerable = [item for item in items if item.meta["answerable"] == "1"]
        only = super().tallies(answerable, responses, verdicts)
        return super().tallies(items, responses, verdicts) | {f"{name}_answerable": each for name, each in only.items()}
