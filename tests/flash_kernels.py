"""Stand-ins for attention kernels that run on GPUs only: their signatures and checks, and a plain computation.

The checks are those of flash-attn 2 (``mha_fwd`` and ``mha_varlen_fwd`` in csrc/flash_attn/flash_api.cpp) and of torch
(the same functions in aten/src/ATen/native/transformers/cuda/flash_attn), but for the one that tensors are on a GPU.
Where the kernels would read other memory, or leave keys out, without a word (bounds that do not fit, a longest sample
that is not), the stand-ins refuse. The causal mask is aligned at the bottom right, as since flash-attn 2.1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
import transformers.modeling_flash_attention_utils as flash
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from vlsafe.strategies import attention, segments
from vlsafe.strategies.attention import Runtime

GPU = Runtime(torch.device("cuda"), torch.bfloat16)
"""What a run on a GPU in bfloat16 asks kernels for. Here its tensors are on the CPU."""


class StandIn:
    """Calls made, and whether float32 is let through, for comparisons that rounding would blur."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.calls: list[str] = []

    def flash_attn_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
    ) -> Tensor:
        """q [rows, length, heads, width]; k, v [rows, key length, key heads, width]."""
        self.calls.append("flash_attn_func")
        assert q.ndim == k.ndim == v.ndim == 4 and k.shape == v.shape and q.shape[0] == k.shape[0]
        assert (dropout_p, softcap, alibi_slopes, return_attn_probs) == (0.0, 0.0, None, False)
        with _unseen():
            self._check(q, k, v)
            rows = [attended(*row, causal, softmax_scale, window_size) for row in zip(q, k, v, strict=True)]
            return torch.stack(rows)

    def flash_attn_varlen_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
        block_table: Tensor | None = None,
    ) -> Tensor:
        """q [tokens, heads, width]; k, v [key tokens, key heads, width]; cu_seqlens [samples + 1]."""
        self.calls.append("flash_attn_varlen_func")
        assert (dropout_p, softcap, alibi_slopes, return_attn_probs, block_table) == (0.0, 0.0, None, False, None)
        longest = int(max_seqlen_q), int(max_seqlen_k)  # as the operator reads a tensor where it wants a number
        with _unseen():
            return self._varlen(q, k, v, (cu_seqlens_q, cu_seqlens_k), longest, causal, softmax_scale, window_size)

    def varlen_attn(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor | None,
        max_q: int,
        max_k: int,
        *,
        return_aux: Any = None,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
        seqused_k: Tensor | None = None,
        block_table: Tensor | None = None,
        num_splits: int | None = None,
    ) -> Tensor:
        """torch's own: it takes no tensor for a number, and wants to be told of fewer key heads."""
        self.calls.append("varlen_attn")
        assert (return_aux, seqused_k, block_table, num_splits) == (None, None, None, None)
        assert type(max_q) is int and type(max_k) is int and cu_seq_k is not None
        assert all(each.stride(-1) == 1 for each in (query, key, value)), "contiguous last dimension"
        assert query.shape[-1] % 8 == 0, "head_size must be a multiple of 8"
        assert enable_gqa or query.shape[1] == key.shape[1], "the same number of heads"
        causal = window_size == (-1, 0)
        with _unseen():
            return self._varlen(query, key, value, (cu_seq_q, cu_seq_k), (max_q, max_k), causal, scale, window_size)

    def _varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bounds: tuple[Tensor, Tensor],
        longest: tuple[int, int],
        causal: bool,
        scale: float | None,
        window: tuple[int, int],
    ) -> Tensor:
        assert q.ndim == k.ndim == v.ndim == 3 and k.shape == v.shape
        self._check(q, k, v)
        for cumulative, most, tokens in zip(bounds, longest, (len(q), len(k)), strict=True):
            assert cumulative.dtype == torch.int32, "cu_seqlens must have dtype int32"
            assert cumulative.ndim == 1 and cumulative.is_contiguous() and cumulative.device == q.device
            assert cumulative[0] == 0 and cumulative[-1] == tokens and int(cumulative.diff().max()) == most
            assert bool((cumulative.diff() > 0).all())
        assert len(bounds[0]) == len(bounds[1])
        samples = zip(pairwise(bounds[0].tolist()), pairwise(bounds[1].tolist()), strict=True)
        blocks = [attended(q[a:b], k[c:d], v[c:d], causal, scale, window) for (a, b), (c, d) in samples]
        return torch.cat(blocks)

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        half = q.dtype in (torch.float16, torch.bfloat16)
        assert half or self.exact, "FlashAttention only support fp16 and bf16 data type"
        assert q.dtype == k.dtype == v.dtype, "query, key and value must have the same dtype"
        assert q.device == k.device == v.device
        assert q.shape[-1] == k.shape[-1] <= 256, "FlashAttention only supports head dimension at most 256"
        assert q.shape[-2] % k.shape[-2] == 0, "heads in key/value must divide heads in query"


@contextmanager
def _unseen() -> Iterator[None]:
    """What counts the reads of a model does not see those of a stand-in."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def attended(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None, window: tuple[int, int] = (-1, -1)
) -> Tensor:
    """q [length, heads, width]; k, v [key length, key heads, width] -> [length, heads, width], in float32 within."""
    groups = q.shape[1] // k.shape[1]
    keys, values = (each.float().repeat_interleave(groups, 1) for each in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.float(), keys) * (q.shape[-1] ** -0.5 if scale is None else scale)
    ahead = torch.arange(len(k)) - torch.arange(len(q))[:, None] - (len(k) - len(q))  # of the query's own position
    left, right = window[0], 0 if causal else window[1]
    seen = torch.ones_like(ahead, dtype=torch.bool)
    if right >= 0:
        seen &= ahead <= right
    if left >= 0:
        seen &= ahead >= -left
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values).to(q.dtype)


@contextmanager
def flash_installed(exact: bool = False) -> Iterator[StandIn]:
    """As on a machine with a GPU and flash-attn 2; the kernel is the stand-in."""
    kernel = StandIn(exact)
    package, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    package.flash_attn_func, package.flash_attn_varlen_func = kernel.flash_attn_func, kernel.flash_attn_varlen_func
    package.flash_attn_with_kvcache = None
    padding.pad_input, padding.unpad_input = flash._pad_input, flash._unpad_input
    matrix = flash.FLASH_ATTENTION_COMPATIBILITY_MATRIX
    there = {"general_availability_check": lambda: True, "supported_devices": ((lambda: True, "cuda"),)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "flash_attn", package)
        patch.setitem(sys.modules, "flash_attn.bert_padding", padding)
        patch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: True)
        patch.setattr(flash, "is_flash_attn_2_available", lambda: True)
        patch.setitem(matrix, 2, matrix[2] | there)
        patch.setattr(flash, "_loaded_implementation", None)  # and again afterwards: the next asks for the package anew
        patch.setattr(attention, "_ampere", lambda: True)
        yield kernel


@contextmanager
def varlen_on_gpu(exact: bool = False) -> Iterator[StandIn]:
    """As on a GPU without flash-attn: torch's variable-length kernel, which is the stand-in, takes CPU tensors."""
    kernel, takes = StandIn(exact), segments.varlen_takes

    def on_gpu(device: str, dtype: torch.dtype, width: int, dropout: float) -> bool:
        return takes("cuda", torch.bfloat16 if exact else dtype, width, dropout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_ampere", lambda: True)
        patch.setattr(segments, "varlen_attn", kernel.varlen_attn)
        patch.setattr(segments, "varlen_takes", on_gpu)
        yield kernel
