"""An objective turns a batch into sums, so that the caller can normalise over the whole global batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from vlsafe.data.collate import Batch


@dataclass
class LossSums:
    """``loss``: scalar, the sum of token losses, with its graph. ``sample_loss`` and ``sample_tokens``: [samples],
    detached."""

    loss: Tensor
    sample_loss: Tensor
    sample_tokens: Tensor


class Objective(ABC):
    """One file each. It never averages: sums over tokens are divided once, by the supervised tokens of the global
    batch, so that neither accumulation nor ranks nor answer lengths change the gradient (pitfalls C1-C3)."""

    @abstractmethod
    def __call__(self, model: PreTrainedModel | PeftModel, batch: Batch) -> LossSums:
        """The batch's sums under ``model``."""
