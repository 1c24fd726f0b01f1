"""Supervised fine-tuning: cross-entropy of the assistant's tokens."""

from __future__ import annotations

from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from vlsafe.data.collate import Batch
from vlsafe.data.encoding import IGNORE
from vlsafe.objectives.base import LossSums, Objective


class SFT(Objective):
    """Next-token cross-entropy over the supervised tokens.

    Args:
        logits: ``supervised`` computes logits only where a token is supervised (about 16 % of positions in VLGuard);
            ``all`` computes them everywhere, which is the reference path and gives the same loss and gradients.
    """

    def __init__(self, logits: Literal["supervised", "all"] = "supervised") -> None:
        self.logits = logits

    def __call__(self, model: PreTrainedModel | PeftModel, batch: Batch) -> LossSums:
        targets = batch.labels[:, 1:]
        chosen = targets != IGNORE
        logits = (
            supervised_logits(model, batch, chosen) if self.logits == "supervised" else all_logits(model, batch, chosen)
        )
        losses = F.cross_entropy(logits.float(), targets[chosen], reduction="none")
        sample_of = batch.samples[:, 1:][chosen]
        sums = torch.zeros(len(batch.ids), device=losses.device, dtype=losses.dtype)
        tokens = torch.bincount(sample_of, minlength=len(batch.ids))
        return LossSums(losses.sum(), sums.index_add(0, sample_of, losses.detach()), tokens)


def all_logits(model: nn.Module, batch: Batch, chosen: Tensor) -> Tensor:
    """Reference: logits at every position, then those that predict a supervised token. [supervised, vocabulary]"""
    return model(**batch.inputs, use_cache=False).logits[:, :-1][chosen]


def supervised_logits(model: PreTrainedModel | PeftModel, batch: Batch, chosen: Tensor) -> Tensor:
    """The head runs only where it is needed: it sees the hidden states [supervised, width] as one long row.

    The head stays inside the model's own forward (its soft-capping or scaling, a PEFT wrapper, sharding hooks); a hook
    on its input picks the positions.
    """
    head = model.get_output_embeddings()

    def pick(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][:, :-1][chosen][None], *args[1:])

    handle = head.register_forward_pre_hook(pick)
    try:
        return model(**batch.inputs, use_cache=False).logits[0]
    finally:
        handle.remove()
