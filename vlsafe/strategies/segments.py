"""Attention over samples laid one after the other, sample by sample, where no variable-length kernel exists.

transformers gives SDPA a block-diagonal mask for such a row, and the kernel then computes every pair of positions in
the row, most of which the mask throws away. On a CPU that was a fifth of a training step. Here each sample's block is
computed on its own: the same result, ``sum(n_i ** 2)`` instead of ``sum(n_i) ** 2`` pairs. Rows without several
samples, generation and padded batches go to transformers' own SDPA function, the reference path in the tests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SEGMENTED_SDPA = "vlsafe_segmented_sdpa"
"""The name under which transformers knows this attention."""


def segmented_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sample of a row.

    ``query`` [1, heads, length, width], ``key`` and ``value`` [1, key heads, length, width]; samples start where
    ``position_ids`` is 0. Returns [1, length, heads, width].
    """
    starts = _starts(query, key, kwargs.get("position_ids"))
    if starts is None or kwargs.get("sliding_window") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    blocks = [
        scaled_dot_product_attention(
            query[:, :, begin:end],
            key[:, :, begin:end],
            value[:, :, begin:end],
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for begin, end in zip(starts, [*starts[1:], query.shape[2]], strict=True)
    ]
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous(), None


def _starts(query: Tensor, key: Tensor, position_ids: Tensor | None) -> list[int] | None:
    """Where the samples of a single row begin; None unless there are several."""
    if query.shape[0] != 1 or query.shape[2] != key.shape[2] or query.device.type != "cpu" or position_ids is None:
        return None
    starts: list[int] = (position_ids.reshape(-1) == 0).nonzero()[:, 0].tolist()
    return starts if len(starts) > 1 and starts[0] == 0 else None


AttentionInterface.register(SEGMENTED_SDPA, segmented_sdpa)
AttentionMaskInterface.register(SEGMENTED_SDPA, sdpa_mask)
