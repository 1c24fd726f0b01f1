"""MM-SafetyBench (arXiv 2311.17600): 1,680 questions of 13 scenarios, each with three pictures made for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import cell, read_json, read_records
from vlsafe.evaluation.benchmarks.pictures import unpacked
from vlsafe.evaluation.records import Item

Kind = Literal["SD", "TYPO", "SD_TYPO", "text"]

SCENARIOS = {
    "01-Illegal_Activitiy": "harm",  # the authors' spelling
    "02-HateSpeech": "harm",
    "03-Malware_Generation": "harm",
    "04-Physical_Harm": "harm",
    "05-EconomicHarm": "harm",
    "06-Fraud": "harm",
    "07-Sex": "harm",
    "08-Political_Lobbying": "lobbying",
    "09-Privacy_Violence": "harm",
    "10-Legal_Opinion": "advice",
    "11-Financial_Advice": "advice",
    "12-Health_Consultation": "advice",
    "13-Gov_Decision": "advice",
}
"""Scenario -> group. 10 to 13 ask for advice, where a disclaimer is wanted; 08 is policy. Nothing averages over all."""

_GET = "python -m vlsafe fetch mm-safetybench"


class MMSafetyBench(Benchmark):
    """``path``: the authors' folder (``processed_questions/``, ``imgs/``), or that of Hugging Face
    (``data/<scenario>/<kind>.parquet`` with ``id``, ``question``, ``image``).

    Variants ``<kind>,harm``, ``<kind>,lobbying`` and ``<kind>,advice``; groups are the scenarios.

    Args:
        kinds: pictures: of Stable Diffusion, typographic, both; ``text`` asks in words alone.
        tiny: the authors' sample, ``TinyVersion_ID_List.json`` in the folder.
    """

    authors_decide = "GPT-4 with a prompt for each kind of scenario"

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "mm_safetybench",
        seed: int = 0,
        kinds: list[Kind] | None = None,
        tiny: bool = False,
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.kinds: list[Kind] = kinds or ["SD_TYPO"]
        unknown = set(self.kinds) - {"SD", "TYPO", "SD_TYPO", "text"}
        if unknown:
            raise ConfigError(f"benchmark {name!r}: unknown kind {', '.join(sorted(unknown))}; SD, TYPO, SD_TYPO, text")
        self.tiny = tiny

    def load(self) -> list[Item]:
        read = self._original if (self.path / "processed_questions").is_dir() else self._parquet
        sample = self._sample()
        items = []
        for kind in self.kinds:
            for scenario, group in SCENARIOS.items():
                for number, question, image in read(scenario, kind):
                    if sample is None or number in sample[scenario]:
                        items.append(self._item(scenario, group, kind, number, question, image))
        return items

    def _sample(self) -> dict[str, set[str]] | None:
        if not self.tiny:
            return None
        rows = read_json(self.path / "TinyVersion_ID_List.json", _GET)
        return {row["Scenario"]: {str(number) for number in row["Sampled_ID_List"]} for row in rows}

    def _original(self, scenario: str, kind: Kind) -> Iterator[tuple[str, str, ImageRef | None]]:
        file = self.path / "processed_questions" / f"{scenario}.json"
        column = {"SD": "Rephrased Question(SD)", "text": "Question"}.get(kind, "Rephrased Question")
        for number, row in read_json(file, _GET).items():
            if column not in row:
                raise DataError(f"{file}, record {number!r}: no {column!r}; get it again with `{_GET}`")
            image = None if kind == "text" else ImageRef(self.path / "imgs", f"{scenario}/{kind}/{number}.jpg")
            yield number, row[column], image

    def _parquet(self, scenario: str, kind: Kind) -> Iterator[tuple[str, str, ImageRef | None]]:
        split = "Text_only" if kind == "text" else kind
        file = self.path / "data" / scenario.partition("-")[2] / f"{split}.parquet"
        for row in read_records(file, ("id", "question"), _GET):
            data: Any = cell(row, "image.bytes")
            yield str(row["id"]), row["question"], None if kind == "text" else unpacked(data)

    def _item(self, scenario: str, group: str, kind: Kind, number: str, question: str, image: ImageRef | None) -> Item:
        variant = f"{kind},{group}" + (",tiny" if self.tiny else "")
        return Item(
            id=f"{self.name}/{kind}/{scenario}/{number}",
            benchmark=self.name,
            variant=variant,
            side="harm",
            question=question,
            image=image,
            group=scenario,
            cluster=f"{scenario}/{number}",
        )
