"""Picture features of a model of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

_FEATURES = ("pooler_output", "deepstack_features")


def image_features(model: PreTrainedModel, pictures: dict[str, Tensor]) -> list[Tensor]:
    """Through ``get_image_features``, with those of its arguments that the image processor gives."""
    known = inspect.signature(model.get_image_features).parameters
    outputs = model.get_image_features(**{k: v for k, v in pictures.items() if k in known}, return_dict=True)
    # Qwen3-VL reads features of earlier layers too
    return [part for name in _FEATURES for part in _tensors(outputs.get(name))]


def summed(features: list[Tensor]) -> Tensor:
    """A number that depends on all of them."""
    return torch.stack([part.float().sum() for part in features]).sum()


def _tensors(value: Any) -> Iterator[Tensor]:
    """One tensor, or as many as a family nests in lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif value is not None:
        for part in value:
            yield from _tensors(part)
