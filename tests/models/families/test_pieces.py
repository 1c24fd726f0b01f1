"""A checkpoint that is read row by row holds what transformers reads whole: weights, buffers and logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from making import Family
from test_families import mixed, opened
from tiny import draw
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlsafe.models.backbones.pieces import read_in_pieces
from vlsafe.strategies.filling import StandIn


def in_pieces(checkpoint: Path, family: Family, dtype: str) -> PreTrainedModel:
    backbone = opened(checkpoint, family)
    backbone.dtype = dtype
    with read_in_pieces():
        model = backbone.load_model()
    assert all(isinstance(parameter, StandIn) for parameter in model.parameters())
    return model


def put_together(model: PreTrainedModel, parts: int = 3) -> PreTrainedModel:
    """The model, each parameter read in so many runs of rows."""
    for _, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, StandIn):
                each = -(-len(parameter) // parts)
                runs = [parameter.read(i * each, min((i + 1) * each, len(parameter))) for i in range(parts)]
                setattr(module, name, nn.Parameter(torch.cat(runs)))
    model.tie_weights()
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_and_buffers_are_those_of_ordinary_loading(dtype: str, family: Family, checkpoint: Path) -> None:
    model = in_pieces(checkpoint, family, dtype)
    backbone = opened(checkpoint, family)
    backbone.dtype = dtype
    plain = backbone.load_model()
    same(dict(put_together(model).named_parameters()), dict(plain.named_parameters()))
    same(dict(model.named_buffers()), dict(plain.named_buffers()))  # those in no file too


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_logits_are_those_of_ordinary_loading(family: Family, checkpoint: Path, tmp_path: Path) -> None:
    backbone = opened(checkpoint, family)
    pictures = {"red": draw(tmp_path, "red.png", "red"), "wide": draw(tmp_path, "wide.png", "blue", (32, 16))}
    batch = mixed(backbone, pictures)
    model, plain = put_together(in_pieces(checkpoint, family, "float32")), backbone.load_model()
    with torch.no_grad():
        found, expected = (each(**batch.inputs).logits for each in (model, plain))
    assert torch.equal(found, expected)
