"""Conversation -> token ids, labels and pictures: the one renderer for training and for evaluation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import ProcessorMixin

from vlsafe.conversation import Conversation
from vlsafe.data.chat import (
    Message,
    Renderer,
    Span,
    answer_spans,
    check_turns,
    control_tokens,
    line_breaks_of,
    messages_of,
    opening_of,
    special_tokens,
)
from vlsafe.data.images import open_image
from vlsafe.data.processors import PaliGemmaProcessor
from vlsafe.errors import DataError

IGNORE = -100
"""Label of a position that is not supervised, the value that torch's cross-entropy skips."""

PER_TOKEN = ("mm_token_type_ids", "token_type_ids", "cross_attention_mask")
"""What processors give for every token beside its id: Qwen-VL's kinds of token, from which it counts its positions;
which tokens PaliGemma and Gemma 3 read in both directions; which pictures a token of Llama 3.2 Vision sees."""


CUT, CUT_TOKENS, CUT_ANSWERS = "samples cut at max_length", "tokens cut off", "whole answers cut off"
BROKEN = "control tokens in text, broken up"


@dataclass
class Encoded:
    """One sample. ``input_ids`` and ``labels``: int64 [length]. ``pixels``: the picture tensors of the processor.
    ``per_token``: what else the model wants of every token (:data:`PER_TOKEN`), [length, ...]. ``seconds``: what
    reading, decoding and encoding it took, where that was measured. ``changes``: how often something of the record was
    not taken as it stands, by kind (:data:`CUT`, :data:`CUT_TOKENS`, :data:`CUT_ANSWERS`, :data:`BROKEN`)."""

    id: str
    source: str
    input_ids: Tensor
    labels: Tensor
    pixels: dict[str, Tensor] = field(default_factory=dict)
    text: str = ""
    per_token: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    changes: Counter[str] = field(default_factory=Counter)

    @property
    def supervised(self) -> int:
        """Supervised tokens; the first position is never predicted."""
        return int((self.labels[1:] != IGNORE).sum())


class Encoding:
    """Renders, tokenises and labels.

    Args:
        processor: a Hugging Face processor with a tokenizer, an image processor and a chat template.
        system_prompt: stands before every conversation that brings none; None leaves it to the template.
        supervise: ``all`` assistant turns, or the ``last`` one only.
        max_length: most tokens of a sample; None for no limit.
        too_long: what to do with a longer one: ``error``, or ``truncate`` it there and train on what is left, as LLaVA
            does; never a picture, nor everything that is supervised.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        system_prompt: str | None = None,
        supervise: Literal["all", "last"] = "all",
        max_length: int | None = None,
        too_long: Literal["error", "truncate"] = "error",
    ) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.system_prompt = system_prompt
        self.supervise = supervise
        self.max_length = max_length
        self.too_long = too_long
        self._special = special_tokens(processor)

    def sample(self, conversation: Conversation) -> Encoded:
        """A training sample. Raises DataError naming the record when nothing of it would be supervised."""
        check_turns(conversation)
        messages, text = self._render(conversation, prompt=False)
        spans = self._spans(messages, text, prompt=False)
        encoded, offsets = self._tokenise(conversation, text, spans)
        labels = torch.full_like(encoded.input_ids, IGNORE)
        for span in spans if self.supervise == "all" else spans[-1:]:
            for position in _positions(span, offsets):
                labels[position] = encoded.input_ids[position]
        encoded.labels = labels
        if broken := control_tokens(conversation, self._special):
            encoded.changes[BROKEN] += broken
        self._limit(encoded)
        if encoded.supervised == 0:
            raise DataError(f"{_where(conversation)}: no token would be supervised; it needs an assistant answer")
        return encoded

    def prompt(self, conversation: Conversation) -> Encoded:
        """A prompt that ends where the assistant is to answer; every label is ignored."""
        messages, text = self._render(conversation, prompt=True)
        earlier = self._spans(messages, text, prompt=True) if self._reads_both_ways else []
        encoded, _ = self._tokenise(conversation, text, earlier)
        encoded.labels = torch.full_like(encoded.input_ids, IGNORE)
        return encoded

    def fingerprints(self) -> dict[str, str]:
        """sha256 of what decides a prompt's text beside the system prompt, ``template``, and of what decides its
        pixels, ``image_processor``."""
        images = {k: v for k, v in self.processor.image_processor.to_dict().items() if "version" not in k}
        facts = {"template": self.processor.chat_template, "image_processor": images}
        return {
            name: hashlib.sha256(json.dumps(fact, sort_keys=True, default=str).encode()).hexdigest()
            for name, fact in facts.items()
        }

    @cached_property
    def _opening(self) -> tuple[str, str]:
        return opening_of(self._template)

    def _render(self, conversation: Conversation, prompt: bool) -> tuple[list[Message], str]:
        messages = messages_of(conversation, self._special, self.system_prompt)
        return messages, self._template(messages, prompt)

    @cached_property
    def _template(self) -> Renderer:
        return Renderer(self.processor)

    def _spans(self, messages: list[Message], text: str, prompt: bool) -> list[Span]:
        return answer_spans(lambda m: self._template(m, prompt), messages, text, self._end_tokens(), *self._opening)

    @property
    def _reads_both_ways(self) -> bool:
        """Whether the model reads what stands before the first answer in both directions."""
        return isinstance(self.processor, PaliGemmaProcessor)

    def _end_tokens(self) -> list[str]:
        control = [token for token in self._special if token != self.processor.image_token]
        return control + line_breaks_of(self.processor.chat_template)

    def _tokenise(
        self, conversation: Conversation, text: str, answers: list[Span]
    ) -> tuple[Encoded, dict[str, list[Any]]]:
        images = [open_image(reference) for reference in conversation.images]
        placeholders = text.count(self.processor.image_token)
        if placeholders != len(images):
            raise DataError(
                f"{_where(conversation)}: the template shows {placeholders} pictures, the record has {len(images)}; "
                "use a chat template that renders every picture"
            )
        bos = self.tokenizer.bos_token
        out = self.processor(
            text=[text],
            images=images or None,
            add_special_tokens=not (bos and bos in text),
            return_offsets_mapping=True,
            return_text_replacement_offsets=True,
        )
        offsets = {
            "tokens": out.pop("offset_mapping")[0],
            "replacements": (out.pop("text_replacement_offsets", None) or [[]])[0],
        }
        ids = torch.tensor(out.pop("input_ids")[0], dtype=torch.long)
        out.pop("attention_mask", None)
        per_token = {name: torch.as_tensor(out.pop(name)[0]) for name in PER_TOKEN if name in out}
        if self._reads_both_ways:
            first = _positions(answers[0], offsets)[0] if answers else len(ids)
            per_token["token_type_ids"] = (torch.arange(len(ids)) >= first).long()
        pixels = {name: _tensor(value) for name, value in out.items()}
        return Encoded(conversation.id, conversation.source, ids, ids, pixels, text, per_token), offsets

    def _limit(self, encoded: Encoded) -> None:
        length = len(encoded.input_ids)
        if self.max_length is None or length <= self.max_length:
            return
        cut = encoded.input_ids[self.max_length :]
        begins, whole = _answers(encoded.labels, self.max_length)
        lost = f"its last {len(cut):,} tokens, with {whole} of {begins} answers"
        where = f"{encoded.source}, record {encoded.id!r}: {length:,} tokens"
        if self.too_long == "error":
            raise DataError(
                f"{where}, more than max_length={self.max_length}; raise max_length, or set too_long: truncate to "
                f"train without {lost}"
            )
        if bool(torch.isin(cut, torch.tensor(self.processor.image_token_ids)).any()):
            raise DataError(f"{where}, of which max_length={self.max_length} would cut a picture; raise max_length")
        encoded.input_ids = encoded.input_ids[: self.max_length]
        encoded.labels = encoded.labels[: self.max_length]
        if encoded.supervised == 0:
            raise DataError(
                f"{where}, of which max_length={self.max_length} would cut all that is supervised ({lost}); "
                "raise max_length, or remove the record"
            )
        encoded.per_token = {name: values[: self.max_length] for name, values in encoded.per_token.items()}
        encoded.changes.update({CUT: 1, CUT_TOKENS: len(cut)} | ({CUT_ANSWERS: whole} if whole else {}))


def _answers(labels: Tensor, end: int) -> tuple[int, int]:
    """Supervised answers, and how many of them begin at ``end`` or later."""
    supervised = (labels != IGNORE).long()
    begins = (torch.diff(supervised, prepend=supervised.new_zeros(1)) == 1).nonzero().flatten()
    return len(begins), int((begins >= end).sum())


def _positions(span: Span, offsets: dict[str, list[Any]]) -> list[int]:
    """Tokens that share any character with ``span``, a span of the text before pictures are expanded."""
    start, end = (_after_expansion(place, offsets["replacements"]) for place in span)
    return [place for place, (first, last) in enumerate(offsets["tokens"]) if first < end and last > start]


def _after_expansion(place: int, replacements: list[dict[str, Any]]) -> int:
    """Where a character stands once the processor has expanded the picture placeholders before it."""
    gained = [r["new_span"][1] - r["span"][1] for r in replacements if r["span"][1] <= place]
    return place + (gained[-1] if gained else 0)


def _tensor(value: Any) -> Tensor:
    """Processor output without ``return_tensors``: a list of arrays, stacked to [pictures, ...]."""
    if isinstance(value, Tensor):
        return value
    return torch.stack([torch.as_tensor(element) for element in value])


def _where(conversation: Conversation) -> str:
    return f"{conversation.source}, record {conversation.id!r}"
