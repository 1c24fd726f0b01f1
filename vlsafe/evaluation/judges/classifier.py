"""Sequence classifiers: any text classifier of transformers, its labels named in ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import AutoModelForSequenceClassification

from vlsafe.data.tokenizers import load_tokenizer
from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges.base import BatchJudge, Exchange, Ruling, asked
from vlsafe.evaluation.judges.weights import folder_digest, model_folder, short_name
from vlsafe.evaluation.records import Label


class ClassifierJudge(BatchJudge):
    """``classifier:MODEL``: a directory, ``cache:NAME`` or hub name of an ``AutoModelForSequenceClassification``.

    Args:
        model: see above.
        labels: the model's label -> ours, for each of its labels: ``{REFUSAL: refuse, NORMAL: comply}``.
        harmful: those of the model's labels that call an answer harmful; the sum of their probabilities is the score.
        reads: the answer alone, or the instruction and the answer as a pair.
        revision: commit, tag or branch on the hub.
        batch_size: texts of similar length that are read at once.

    Raises ConfigError when the labels are not those of the model, when the first response is judged. An answer longer
    than the model reads loses its end.
    """

    def __init__(
        self,
        model: str,
        labels: dict[str, str],
        harmful: list[str] | None = None,
        reads: Literal["answer", "exchange"] = "answer",
        revision: str | None = None,
        batch_size: int = 32,
    ) -> None:
        wrong = sorted(set(labels.values()) - (set(get_args(Label)) - {"error"}))
        if wrong:
            raise ConfigError(f"classifier {model!r}: {', '.join(wrong)} is no label; choose of {_OURS}")
        strange = sorted(set(harmful or []) - set(labels))
        if strange:
            raise ConfigError(f"classifier {model!r}: `harmful` names {', '.join(strange)}, which `labels` does not")
        self.name = f"classifier:{short_name(model)}"
        self.weights = self._model = model
        self._revision, self._reads, self._batch = revision, reads, batch_size
        self.labels, self.harmful = labels, harmful or []

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        return f"1 {folder_digest(self._folder)} {self._reads} {sorted(self.labels.items())} {sorted(self.harmful)}"

    @torch.inference_mode()
    def rulings(self, exchanges: Sequence[Exchange]) -> list[Ruling]:
        texts = [response.text for response, _ in exchanges]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: dict[int, Ruling] = {}
        for start in range(0, len(order), self._batch):
            places = order[start : start + self._batch]
            answers = [texts[place] for place in places]
            # Only the second of a pair is cut: the instruction says what the answer answers.
            pair = self._reads == "exchange"
            read = ([asked(exchanges[place][1]) for place in places], answers) if pair else (answers,)
            cut = "only_second" if pair else "longest_first"
            encoded = self.tokenizer(*read, return_tensors="pt", padding=True, truncation=cut).to(self.model.device)
            shares = self.model(**encoded).logits.float().softmax(dim=-1).tolist()
            found |= {place: self._ruling(row) for place, row in zip(places, shares, strict=True)}
        return [found[place] for place in range(len(texts))]

    def _ruling(self, shares: list[float]) -> Ruling:
        by_name = {self._names[place]: share for place, share in enumerate(shares)}
        best = max(by_name, key=by_name.__getitem__)
        score = sum(by_name[name] for name in self.harmful) if self.harmful else None
        label: Label = self.labels[best]  # type: ignore[assignment]
        return Ruling(label, f"{best} {by_name[best]:.3f}", score)

    @cached_property
    def _folder(self) -> Path:
        return model_folder(self._model, self._revision)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self._folder)

    @cached_property
    def _names(self) -> dict[int, str]:
        return dict(self.model.config.id2label)

    @cached_property
    def model(self) -> Any:
        model = AutoModelForSequenceClassification.from_pretrained(self._folder)
        names = set(model.config.id2label.values())
        if names != set(self.labels):
            raise ConfigError(
                f"classifier {self._model!r} has the labels {', '.join(sorted(names))}, but `labels` names "
                f"{', '.join(sorted(self.labels))}; give each of the model's labels one of {_OURS}"
            )
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self.tokenizer.pad_token_id
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


_OURS = ", ".join(label for label in get_args(Label) if label != "error")
