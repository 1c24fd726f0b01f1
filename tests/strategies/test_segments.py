"""Attention sample by sample equals transformers' SDPA with a block-diagonal mask, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vlsafe.strategies.segments import segmented_sdpa

LENGTHS = [3, 1, 5]


class Attention(nn.Module):
    """What the functions read of an attention layer."""

    is_causal = True
    num_key_value_groups = 2


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    length = sum(LENGTHS)
    query = torch.randn(1, 4, length, 8, requires_grad=True)
    return query, torch.randn(1, 2, length, 8, requires_grad=True), torch.randn(1, 2, length, 8, requires_grad=True)


def block_mask() -> Tensor:
    blocks = torch.block_diag(*(torch.ones(n, n).tril() for n in LENGTHS))
    return blocks.bool()[None, None]


def test_output_and_gradients_equal_the_masked_reference() -> None:
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    mine, theirs = inputs(), inputs()
    out, _ = segmented_sdpa(Attention(), *mine, block_mask(), position_ids=positions)
    reference, _ = sdpa_attention_forward(Attention(), *theirs, block_mask())
    assert out.shape == reference.shape == (1, sum(LENGTHS), 4, 8)
    assert torch.allclose(out, reference, atol=1e-6)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (reference * weight).sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_no_mask_is_read_where_samples_are_apart() -> None:
    """The blocks come from the positions: a mask that lets everything through changes nothing."""
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    with_mask, _ = segmented_sdpa(Attention(), *inputs(), block_mask(), position_ids=positions)
    without, _ = segmented_sdpa(Attention(), *inputs(), torch.ones_like(block_mask()), position_ids=positions)
    assert torch.equal(with_mask, without)


@pytest.mark.parametrize("extra", [{}, {"position_ids": torch.arange(9)[None]}, {"sliding_window": 2}])
def test_everything_else_goes_to_the_reference(extra: dict) -> None:
    if "sliding_window" in extra:
        extra = extra | {"position_ids": torch.cat([torch.arange(n) for n in LENGTHS])[None]}
    out, _ = segmented_sdpa(Attention(), *inputs(), block_mask(), **extra)
    reference, _ = sdpa_attention_forward(Attention(), *inputs(), block_mask())
    assert torch.equal(out, reference)
