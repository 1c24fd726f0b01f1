"""Attention over samples laid one after the other, sample by sample: ``sum(n_i ** 2)`` pairs of positions.

transformers gives SDPA a block-diagonal mask for such a row: ``sum(n_i) ** 2`` pairs, held and computed, most of which
the mask throws away. Here no such mask is made. On a GPU, torch's variable-length kernel takes the samples' bounds as
collate gives them; elsewhere, and in float32, each sample's block is computed on its own, which is the reference. Rows
of one sample, generation and padded batches go to transformers' own SDPA function.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SEGMENTED_SDPA = "vlsafe_segmented_sdpa"
"""The name under which transformers knows this attention."""

_BEYOND = ("sliding_window", "softcap", "s_aux", "position_bias")
"""Arguments of attention layers that change what is computed, and that are not computed here."""


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

    ``query`` [1, heads, length, width], ``key`` and ``value`` [1, key heads, length, width]. Samples begin and end at
    ``cu_seq_lens_q`` [samples + 1], int32, the longest has ``max_length_q`` tokens; without these they begin where
    ``position_ids`` is 0. Returns [1, length, heads, width].

    Raises ValueError for several samples in a layer of another kind, such as one that sees a window only.
    """
    found = _bounds(query, key, kwargs) if attention_mask is None else None
    if found is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if beyond := [name for name in _BEYOND if kwargs.get(name) is not None]:
        raise ValueError(f"samples in one row are not kept apart under {beyond[0]}; set data.padding_free to false")
    if torch.is_autocast_enabled(query.device.type):  # which knows SDPA, not the kernel
        query, key, value = (each.to(torch.get_autocast_dtype(query.device.type)) for each in (query, key, value))
    cumulative, longest = found
    if varlen_takes(query.device.type, query.dtype, query.shape[-1], dropout):
        q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))  # [length, heads, width]
        gqa = query.shape[1] != key.shape[1]
        bounds = (cumulative, cumulative, longest, longest)
        out = varlen_attn(q, k, v, *bounds, scale=scaling, window_size=(-1, 0), enable_gqa=gqa)
        return out[None], None  # type: ignore[call-overload]  # it is a pair only where asked for one
    return _one_by_one(query, key, value, cumulative.tolist(), dropout, scaling), None


def varlen_takes(device: str, dtype: torch.dtype, width: int, dropout: float) -> bool:
    """Whether torch's variable-length kernel computes heads of ``width``: on a GPU, in half precision, without dropout,
    widths that are multiples of 8 up to 256. That the GPU is new enough is seen to where the attention is chosen."""
    half = dtype in (torch.bfloat16, torch.float16)
    return device == "cuda" and half and width % 8 == 0 and width <= 256 and dropout == 0


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, cumulative: list[int], dropout: float, scaling: float | None
) -> Tensor:
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
        for begin, end in pairwise(cumulative)
    ]
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous()


def _bounds(query: Tensor, key: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, int] | None:
    """Where the samples of a single row begin and end, and the length of the longest; None unless there are several."""
    length, positions = query.shape[2], kwargs.get("position_ids")
    if query.shape[0] != 1 or length != key.shape[2] or length == 1:
        return None
    if (given := kwargs.get("cu_seq_lens_q")) is not None:
        return (given, kwargs["max_length_q"]) if len(given) > 2 else None
    if positions is None:
        return None
    starts = (positions.reshape(-1) == 0).nonzero()[:, 0].to(torch.int32)
    if len(starts) < 2 or starts[0] != 0:
        return None
    cumulative = torch.cat([starts, starts.new_tensor([length])])
    return cumulative, int(cumulative.diff().max())


def segments_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **rest: Any,
) -> Tensor | None:
    """transformers' mask for SDPA; none for a row without padding, which is causal or holds samples that are kept apart
    here. A window (``local_size``) and masks of the model's own (``use_vmap``) need theirs."""
    if batch_size == 1 and attention_mask is None and q_length == kv_length and local_size is None and not use_vmap:
        return None
    return sdpa_mask(
        batch_size, q_length, kv_length, attention_mask=attention_mask, local_size=local_size, use_vmap=use_vmap, **rest
    )


AttentionInterface.register(SEGMENTED_SDPA, segmented_sdpa)
AttentionMaskInterface.register(SEGMENTED_SDPA, segments_mask)
