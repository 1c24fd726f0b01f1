"""How likely prompts are answered with given openings: each prompt is read once, and every opening goes on from there.

The reference reads prompt and opening together, once for each opening, and works with every model. The fast path is for
models of which :func:`vlsafe.models.greedy.suits` says that a row is its tokens and nothing else; a test holds both to
the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from vlsafe.data.collate import Collate
from vlsafe.data.encoding import IGNORE, Encoded
from vlsafe.models.greedy import READ, suits
from vlsafe.models.modes import evaluating
from vlsafe.objectives.sft import supervised_logits


@dataclass(frozen=True)
class Opened:
    """A prompt with each opening, encoded; what is supervised is the opening and nothing else. All of them begin with
    the same prompt."""

    samples: Sequence[Encoded]

    @property
    def begins(self) -> int:
        """Tokens of the prompt."""
        return int((self.samples[0].labels != IGNORE).nonzero()[0])

    @property
    def alike(self) -> bool:
        """Whether the prompt is told in the same tokens whatever follows."""
        prompts = [sample.input_ids[: self.begins] for sample in self.samples]
        whole = all((sample.labels != IGNORE).nonzero()[0] == self.begins for sample in self.samples)
        return whole and all(torch.equal(prompt, prompts[0]) for prompt in prompts)

    def prompt(self) -> Encoded:
        first = self.samples[0]
        return replace(first, input_ids=first.input_ids[: self.begins], labels=first.labels[: self.begins])

    def openings(self) -> list[Tensor]:
        return [sample.input_ids[sample.labels != IGNORE] for sample in self.samples]


@torch.no_grad()
def predictions(model: PreTrainedModel | PeftModel, opened: Sequence[Opened], pad_id: int) -> list[list[Tensor]]:
    """For each prompt and opening the log probabilities [tokens of the opening, vocabulary] before each of its tokens,
    on the model's device."""
    with evaluating(model):
        if suits(model) and all(
            o.alike and not o.samples[0].per_token and o.samples[0].pixels.keys() <= READ for o in opened
        ):
            return _shared(model, opened, pad_id)
        return _apart(model, opened, pad_id)


def _apart(model: PreTrainedModel | PeftModel, opened: Sequence[Opened], pad_id: int) -> list[list[Tensor]]:
    """Reference."""
    flat = [sample for each in opened for sample in each.samples]
    batch = Collate(pad_id)(flat).to(model.device)
    chosen = batch.labels[:, 1:] != IGNORE
    logs = supervised_logits(model, batch, chosen).float().log_softmax(-1)
    each = iter(logs.split(chosen.sum(1).tolist()))
    return [[next(each) for _ in one.samples] for one in opened]


def _shared(model: PreTrainedModel | PeftModel, opened: Sequence[Opened], pad_id: int) -> list[list[Tensor]]:
    batch = Collate(pad_id, "left")([each.prompt() for each in opened]).to(model.device)
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    mask = batch.inputs["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    first = model(**batch.inputs, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    openings = [opening for each in opened for opening in each.openings()]
    told = pad_sequence(openings, batch_first=True, padding_value=pad_id).to(model.device)
    each = len(opened[0].samples)
    cache.batch_repeat_interleave(each)
    mask = torch.cat([mask.repeat_interleave(each, 0), torch.ones_like(told)], dim=1)
    positions = (mask.cumsum(1) - 1)[:, -told.shape[1] :]
    then = model(input_ids=told, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    logits = torch.cat([first.logits[:, -1:].repeat_interleave(each, 0), then.logits[:, :-1]], dim=1)
    rows = [logits[row, : len(opening)].float().log_softmax(-1) for row, opening in enumerate(openings)]
    return [rows[start : start + each] for start in range(0, len(rows), each)]
