"""Projectors: what carries picture features into the language model's embedding space.

Both are expressed by transformers' own ``LlavaMultiModalProjector`` (two linear layers and an activation), so that a
checkpoint loads without vlsafe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from vlsafe.table import Table


@dataclass(frozen=True)
class Projector:
    """``activation`` between the two layers, and how they start: from the standard deviation of the language model's
    input embeddings, and random numbers of a generator."""

    activation: str
    initialise: Callable[[LlavaMultiModalProjector, float, Generator], None]


def _mlp(projector: LlavaMultiModalProjector, spread: float, generator: Generator) -> None:
    """Starts pictures at the typical size of a word's embedding, so that neither drowns the other at step 0."""
    for layer in (projector.linear_1, projector.linear_2):
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        projector.linear_2.weight.mul_(spread)


def _linear(projector: LlavaMultiModalProjector, spread: float, generator: Generator) -> None:
    """One linear map: without an activation two layers are one. The second starts as the identity."""
    _mlp(projector, spread, generator)
    nn.init.eye_(projector.linear_2.weight)
    with torch.no_grad():
        projector.linear_1.weight.mul_(spread)


MLP = Projector("gelu", _mlp)
LINEAR = Projector("linear", _linear)

PROJECTORS = Table("projector", linear=LINEAR, mlp2x_gelu=MLP)
