"""A model that answers: batched greedy generation, text-only and picture prompts in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation, assistant
from vlsafe.data.chat import Renderer, end_of_turn, special_tokens
from vlsafe.data.collate import Batch, Collate
from vlsafe.data.encoding import IGNORE, Encoded, Encoding
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.image_fit import fit_of
from vlsafe.models.fingerprint import fingerprint
from vlsafe.models.greedy import READ, greedy, suits
from vlsafe.models.modes import evaluating
from vlsafe.models.strength import base_tensors


class ModelResponder:
    """Answers prompts with a model of transformers (:class:`vlsafe.evaluation.records.Responder`).

    Prompts are sorted by length, so that a batch pads little; a prompt that cannot be encoded or answered becomes an
    Answer with its ``error``, and the others go on.

    Args:
        model: anything with ``generate``, on its device.
        backbone: gives the processor and the system prompt; the renderer is the one used in training.
        batch_size: prompts answered together.
        precision: a context around every forward, such as autocast; by default the model's own precision.
        dtype: what forwards compute in, where it is neither autocast's nor that of the weights.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        backbone: Backbone,
        batch_size: int = 16,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        dtype: str | None = None,
    ) -> None:
        self.model = model
        self.backbone = backbone
        self.encoding = Encoding(backbone.processor, backbone.system_prompt)
        self.batch_size = batch_size
        self.precision = precision
        self.dtype = dtype

    def identity(self) -> dict[str, Any]:
        """As it was when it was asked for first."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {
            "weights": weights_fingerprint(self.model),
            **self.encoding.fingerprints(),
            "image_fit": fit_of(self.backbone.processor),
            "system_prompt": self.backbone.system_prompt,
            "dtype": self._computed_in(),
        }

    def _computed_in(self) -> str:
        """Autocast keeps sums in float32, so its answers are not quite those of a model in its type."""
        parameter = next(self.model.parameters())
        device = parameter.device.type
        with self.precision():
            if torch.is_autocast_enabled(device):
                return f"{torch.get_autocast_dtype(device)} by autocast".removeprefix("torch.")
        return self.dtype or str(parameter.dtype).removeprefix("torch.")

    def respond(self, prompts: list[Conversation], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        order = sorted(range(len(prompts)), key=lambda i: (bool(prompts[i].images), len(prompts[i].turns[-1].text)))
        if decoding.options:
            yield from ((index, self._likeliest(prompts[index], decoding.options)) for index in order)
            return
        for start in range(0, len(order), self.batch_size):
            yield from self._batch(order[start : start + self.batch_size], prompts, decoding)

    def _batch(
        self, indices: list[int], prompts: list[Conversation], decoding: Decoding
    ) -> Iterator[tuple[int, Answer]]:
        encoded: dict[int, Encoded] = {}
        for index in indices:
            try:
                encoded[index] = self.encoding.prompt(prompts[index])
            except Exception as error:  # whatever it was, it is this prompt's error, never an answer
                yield index, Answer("", finish="error", error=f"{type(error).__name__}: {error}")
        if not encoded:
            return
        batch = Collate(self.backbone.processor.tokenizer.pad_token_id, "left")(list(encoded.values()))
        try:
            with self.precision():
                answers = generated(self.model, self.backbone.processor, batch, decoding)
        except RuntimeError as error:  # out of memory, a kernel's complaint: these prompts failed, the run goes on
            answers = [Answer("", finish="error", error=f"{type(error).__name__}: {error}")] * len(encoded)
        for (index, sample), answer in zip(encoded.items(), answers, strict=True):
            yield index, Answer(answer.text, sample.text, answer.n_tokens, answer.finish, answer.error)

    def _likeliest(self, prompt: Conversation, options: Sequence[str]) -> Answer:
        """The options are told as answers by the renderer of training, so that they stand where an answer would."""
        try:
            told = [self.encoding.sample(replace(prompt, turns=(*prompt.turns, assistant(each)))) for each in options]
            text = self.encoding.prompt(prompt).text
            with self.precision():
                likelihoods = torch.cat(
                    [
                        log_likelihoods(self.model, self.backbone.processor, told[start : start + self.batch_size])
                        for start in range(0, len(told), self.batch_size)
                    ]
                )
        except Exception as error:  # whatever it was, it is this prompt's error, never an answer
            return Answer("", finish="error", error=f"{type(error).__name__}: {error}")
        return Answer(options[int(likelihoods.argmax())], text)


@torch.no_grad()
def log_likelihoods(
    model: PreTrainedModel | PeftModel, processor: ProcessorMixin, samples: Sequence[Encoded]
) -> Tensor:
    """[samples]: the sum of the log probabilities of each sample's last answer, without its end-of-turn token."""
    batch = Collate(processor.tokenizer.pad_token_id)(list(samples)).to(next(model.parameters()).device)
    labels = batch.labels.clone()
    for row in labels:
        row[(row != IGNORE).nonzero()[-1]] = IGNORE
    with evaluating(model):
        logits = model(**batch.inputs).logits[:, :-1].float()
    following = labels[:, 1:]
    chosen = logits.log_softmax(-1).gather(-1, following.clamp(min=0)[..., None])[..., 0]
    return chosen.masked_fill(following == IGNORE, 0).sum(1).cpu()


def generated(
    model: PreTrainedModel | PeftModel, processor: ProcessorMixin, batch: Batch, decoding: Decoding
) -> list[Answer]:
    """One Answer a row of a left-padded batch."""
    batch, ends = batch.to(next(model.parameters()).device), end_tokens(model, processor)
    with evaluating(model):
        if decoding.temperature == 0 and batch.inputs.keys() <= READ and suits(model):
            rows = greedy(model, batch.inputs, ends, decoding.max_new_tokens, decoding.min_new_tokens)
        else:
            rows = by_generate(model, processor, batch.inputs, ends, decoding)
    answers = []
    for row in rows:
        length = next((place for place, token in enumerate(row) if token in ends), None)
        text = processor.tokenizer.decode(row[:length], skip_special_tokens=True).strip()
        answers.append(
            Answer(text, "", len(row) if length is None else length + 1, "length" if length is None else "eos")
        )
    return answers


@torch.no_grad()
def by_generate(
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    inputs: Mapping[str, Tensor],
    ends: list[int],
    decoding: Decoding,
) -> list[list[int]]:
    """The new tokens of each row as transformers' ``generate`` has them: for every model, and the reference of
    :func:`vlsafe.models.greedy.greedy`. What follows an end token is padding."""
    tokens: Tensor = model.generate(
        **inputs,
        do_sample=decoding.temperature > 0,
        temperature=decoding.temperature or None,
        top_p=None,
        top_k=None,
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens,
        pad_token_id=processor.tokenizer.pad_token_id,
        eos_token_id=ends,
        use_cache=True,
        synced_gpus=False,  # where a model is sharded, vlsafe.strategies.lockstep has the others come along
    )
    rows: list[list[int]] = tokens[:, inputs["input_ids"].shape[1] :].tolist()
    return rows


def end_tokens(model: PreTrainedModel | PeftModel, processor: ProcessorMixin) -> list[int]:
    """Ids that end an answer: the tokenizer's, those of the checkpoint's generation config, and the token that the
    chat template puts after an answer, which a base model's configs do not know."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    turn = end_of_turn(Renderer(processor), special_tokens(processor))
    of_turn = None if turn is None else processor.tokenizer.convert_tokens_to_ids(turn)
    return sorted({i for i in [processor.tokenizer.eos_token_id, of_turn, *listed] if i is not None})


def weights_fingerprint(model: nn.Module) -> str:
    """:func:`vlsafe.models.fingerprint.fingerprint` of everything that the model answers with: while its adapters are
    switched off, of the weights below them, so that it is known for the model that it was before."""
    if isinstance(model, PeftModel) and model.get_model_status().enabled is False:
        return fingerprint(base_tensors(model))
    return fingerprint(model.state_dict())
