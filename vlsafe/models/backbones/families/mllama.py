"""Llama 3.2 Vision (Mllama): pictures enter through cross-attention layers, not through the sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlsafe.models.backbones.families.base import Family


class Mllama(Family):
    """Cross-attention is kept to a row's own pictures, so that a batch answers as its rows do alone.

    A position that may see no picture gets an even mean over all picture positions from transformers. Alone, a prompt
    without a picture skips the cross-attention layers instead, and a row's mean runs over its own pictures only; in a
    batch, both would read what other rows brought.
    """

    def prepare(self, model: PreTrainedModel) -> None:
        language = model.model.language_model
        vision = model.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2 + 1
        language.register_forward_pre_hook(_Apart(vision.max_num_tiles * patches), with_kwargs=True)
        for number in language.config.cross_attention_layers:
            language.layers[number].cross_attn.register_forward_hook(_silence, with_kwargs=True)

    image_only = ("vision", "projector", "language")

    def with_blank_image(
        self, inputs: dict[str, Tensor], features: list[Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """One tile of the blank image for the cross-attention layers, which nothing in the text sees: what they add is
        zero, and so is every gradient that they and the vision side get."""
        rows, length = inputs["input_ids"].shape
        tile = features[0][0, :1]  # [1, positions of a tile, width]
        return inputs | {
            "cross_attention_states": tile.expand(rows, -1, -1),
            "cross_attention_mask": inputs["input_ids"].new_zeros(rows, length, 1, 1),
        }, 0.0

    def image_features(self, model: PreTrainedModel, pictures: dict[str, Tensor]) -> list[Tensor]:
        wanted = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        seen = model.model.vision_model(**{name: pictures[name] for name in wanted}).last_hidden_state
        return list(model.model.multi_modal_projector(seen))


_MASKED = torch.finfo(torch.float16).min
"""What a mask holds where nothing is seen: finite in every precision that a mask may be cast to. The lowest float32 is
minus infinity in bfloat16, and a row of those has no softmax."""


class _Apart:
    """Masks out the pictures that a row does not have, also where transformers has unmasked everything."""

    def __init__(self, positions: int) -> None:
        self.positions = positions
        """Positions of one picture, all its tiles."""

    def __call__(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs.get("cross_attention_mask")  # [rows, 1, length, pictures * positions], 0 or the lowest number
        if mask is None:
            return args, kwargs
        sees = kwargs["full_text_row_masked_out_mask"].bool()  # [rows, 1, length, 1]
        open_ = ((mask > _MASKED) & sees).any(dim=2, keepdim=True)
        positions = min(self.positions, mask.shape[-1])  # of a blank image there is one tile
        has = open_.unflatten(-1, (-1, positions)).any(dim=-1).repeat_interleave(positions, dim=-1)
        return args, kwargs | {"cross_attention_mask": mask.masked_fill(~has & ~sees, _MASKED).clamp(_MASKED)}


def _silence(_: nn.Module, args: Any, kwargs: dict[str, Any], output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """No cross-attention where every position is masked: the row has no picture."""
    mask = kwargs["attention_mask"]
    if mask is None:
        return output
    blind = (mask < _MASKED / 2).all(dim=-1)[:, 0, :, None]  # [rows, length, 1]
    return output[0].masked_fill(blind, 0.0), *output[1:]
