"""Attention sample by sample equals transformers' SDPA with a block-diagonal mask, forward and backward."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from flash_kernels import StandIn, varlen_on_gpu
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vlsafe.strategies.segments import segmented_sdpa, segments_mask, varlen_takes

LENGTHS = [3, 1, 5]
POSITIONS = torch.cat([torch.arange(n) for n in LENGTHS])[None]
CUMULATIVE = torch.tensor([0, 3, 4, 9], dtype=torch.int32)
BOUNDS: dict[str, Any] = {"position_ids": POSITIONS, "cu_seq_lens_q": CUMULATIVE, "max_length_q": 5}


class Attention(nn.Module):
    """What the functions read of an attention layer."""

    is_causal = True
    num_key_value_groups = 2


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((1, heads, sum(LENGTHS), 8) for heads in (4, 2, 2))
    query, key, value = (torch.randn(shape).to(dtype).requires_grad_() for shape in shapes)
    return query, key, value


def block_mask() -> Tensor:
    blocks = torch.block_diag(*(torch.ones(n, n).tril() for n in LENGTHS))
    return blocks.bool()[None, None]


@pytest.mark.parametrize("told", [BOUNDS, {"position_ids": POSITIONS}], ids=["bounds", "positions"])
@pytest.mark.parametrize("gpu", [False, True])
def test_output_and_gradients_equal_the_masked_reference(told: dict, gpu: bool) -> None:
    mine, theirs = inputs(), inputs()
    if gpu:
        with varlen_on_gpu(exact=True) as kernel:
            out, _ = segmented_sdpa(Attention(), *mine, None, scaling=0.3, **told)
        assert kernel.calls == ["varlen_attn"]
    else:
        out, _ = segmented_sdpa(Attention(), *mine, None, scaling=0.3, **told)
    reference, _ = sdpa_attention_forward(Attention(), *theirs, block_mask(), scaling=0.3)
    assert out.shape == reference.shape == (1, sum(LENGTHS), 4, 8)
    assert torch.allclose(out, reference, atol=1e-6)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (reference * weight).sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"position_ids": torch.arange(9)[None]},
        {"cu_seq_lens_q": torch.tensor([0, 9], dtype=torch.int32), "max_length_q": 9},
    ],
    ids=["none", "one sample by positions", "one sample by bounds"],
)
def test_a_row_of_one_sample_goes_to_transformers(extra: dict) -> None:
    out, _ = segmented_sdpa(Attention(), *inputs(), None, **extra)
    reference, _ = sdpa_attention_forward(Attention(), *inputs(), None)
    assert torch.equal(out, reference)


def test_what_comes_with_a_mask_goes_to_transformers() -> None:
    """Such as layers that see a window."""
    window = block_mask() & torch.ones(9, 9).triu(-1).bool()
    out, _ = segmented_sdpa(Attention(), *inputs(), window, sliding_window=2, **BOUNDS)
    reference, _ = sdpa_attention_forward(Attention(), *inputs(), window)
    assert torch.equal(out, reference)


def test_a_layer_of_another_kind_is_refused_where_no_mask_keeps_samples_apart() -> None:
    with pytest.raises(ValueError, match="not kept apart under softcap; set data"):
        segmented_sdpa(Attention(), *inputs(), None, softcap=30.0, **BOUNDS)


@pytest.mark.parametrize("gpu", [False, True])
def test_under_autocast_the_kernel_gets_what_sdpa_would(gpu: bool) -> None:
    """Rotary embeddings leave queries and keys in float32 where the weights are."""
    query, key, value = inputs()
    mixed = (query, key, value.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        if gpu:
            with varlen_on_gpu() as kernel:
                out, _ = segmented_sdpa(Attention(), *mixed, None, **BOUNDS)
            assert kernel.calls == ["varlen_attn"]
        else:
            out, _ = segmented_sdpa(Attention(), *mixed, None, **BOUNDS)
    reference, _ = sdpa_attention_forward(Attention(), *inputs(), block_mask())
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), reference, atol=0.05)


@pytest.mark.parametrize(
    ("device", "dtype", "width", "dropout", "takes"),
    [
        ("cuda", torch.bfloat16, 128, 0.0, True),
        ("cuda", torch.float16, 256, 0.0, True),
        ("cuda", torch.float32, 128, 0.0, False),
        ("cuda", torch.bfloat16, 100, 0.0, False),
        ("cuda", torch.bfloat16, 264, 0.0, False),
        ("cuda", torch.bfloat16, 128, 0.1, False),
        ("cpu", torch.bfloat16, 128, 0.0, False),
    ],
)
def test_what_torchs_kernel_takes(device: str, dtype: torch.dtype, width: int, dropout: float, takes: bool) -> None:
    assert varlen_takes(device, dtype, width, dropout) == takes


def test_the_stand_in_is_called_as_torchs_own_is() -> None:
    """And torch's own takes these arguments: without storage, forward and backward."""
    theirs = inspect.signature(varlen_attn).parameters
    mine = inspect.signature(StandIn(True).varlen_attn).parameters
    assert [(p.name, p.kind, p.default) for p in mine.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]
    query, key, value = (
        torch.empty(9, heads, 8, dtype=torch.bfloat16, device="meta", requires_grad=True) for heads in (4, 2, 2)
    )
    bounds = CUMULATIVE.to("meta")
    out = varlen_attn(query, key, value, bounds, bounds, 5, 5, scale=0.3, window_size=(-1, 0), enable_gqa=True)
    out.sum().backward()
    assert out.shape == query.shape and key.grad is not None and key.grad.shape == key.shape


def masked(**asked: Any) -> Tensor | None:
    default = dict(batch_size=1, q_length=9, kv_length=9, allow_is_causal_skip=False)
    return segments_mask(**default | asked)


def test_no_table_of_pairs_is_made_for_a_row_without_padding() -> None:
    assert masked() is None


@pytest.mark.parametrize(
    "asked",
    [
        {"batch_size": 2},
        {"attention_mask": torch.tensor([[True] * 8 + [False]])},
        {"kv_length": 12},
        {"local_size": 2},
        {"use_vmap": True},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_every_other_mask_is_transformers_own(asked: dict) -> None:
    mask = masked(**asked)
    assert mask is not None and mask.shape[-2:] == (9, asked.get("kv_length", 9))
