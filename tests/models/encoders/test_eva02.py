"""EVA-02, whose classes are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from joining import (
    hidden_states,
    noise,
)
from tiny import VISION

from vlsafe.errors import ConfigError
from vlsafe.models.encoders import ENCODERS, eva02
from vlsafe.models.encoders.eva02_model import EVA02Config, EVA02Model, rotary_angles, rotated


def tiny_eva(**changed: Any) -> EVA02Config:
    return EVA02Config(**VISION["eva02"] | changed)


def test_rotary_scores_depend_on_how_far_apart_patches_are() -> None:
    angles = rotary_angles(4, 8, tiny_eva(), torch.device("cpu"))
    assert angles.shape == (16, 4)
    torch.manual_seed(0)
    q, k = (torch.randn(8).expand(17, 8) for _ in range(2))
    scores = rotated(q, angles) @ rotated(k, angles).T
    assert torch.allclose(scores[0, 0], q[0] @ k[0], atol=1e-5)  # the class token has no place
    grid = scores[1:, 1:].reshape(4, 4, 4, 4)  # row, column of the query; row, column of the key
    assert torch.allclose(grid[0, 0, 1, 2], grid[2, 1, 3, 3], atol=1e-4)
    assert not torch.allclose(grid[0, 0, 1, 2], grid[0, 0, 2, 1], atol=1e-2)
    wide = rotary_angles(8, 8, tiny_eva(), torch.device("cpu")).reshape(8, 8, 4)
    assert torch.allclose(wide[2, 6], angles.reshape(4, 4, 4)[1, 3])  # a finer grid covers the same angles


def test_eva_reads_the_published_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = EVA02Model(tiny_eva())
    block = {name.removeprefix("blocks.2.") for name in model.state_dict() if name.startswith("blocks.2.")}
    layers = ["attn.q_proj", "attn.v_proj", "attn.norm", "attn.proj", "norm1", "norm2"]
    layers += ["mlp.fc1_g", "mlp.fc1_x", "mlp.norm", "mlp.fc2"]
    assert block == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {"attn.k_proj.weight"}
    rest = {name for name in model.state_dict() if not name.startswith("blocks.")}
    assert rest == {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"} | {
        "norm.weight", "norm.bias"
    }  # fmt: skip
    head = {"head.weight": torch.zeros(3, 16), "head.bias": torch.zeros(3)}
    model.save_pretrained(tmp_path, state_dict={**model.state_dict(), **head})
    (tmp_path / "config.json").write_text('{"architecture": "eva02_tiny", "num_classes": 3}')
    with pytest.raises(ConfigError, match="is of timm's architecture 'eva02_tiny'; EVA02 reads eva02_base_patch16"):
        ENCODERS["eva02"](str(tmp_path)).config  # noqa: B018
    monkeypatch.setitem(eva02.PUBLISHED, "eva02_tiny", VISION["eva02"])
    loaded = ENCODERS["eva02"](str(tmp_path)).load().eval()
    pixels = noise(16)
    assert torch.equal(hidden_states(loaded, pixels)[-1], hidden_states(model.eval(), pixels)[-1])


def test_published_sizes_are_whole() -> None:
    for sizes in eva02.PUBLISHED.values():
        assert sizes["image_size"] % sizes["patch_size"] == 0
        assert sizes["hidden_size"] // sizes["num_attention_heads"] == 64
        assert sizes["intermediate_size"] == int(sizes["hidden_size"] * 8 / 3)


def test_eva_attends_alike_with_every_kernel_and_learns() -> None:
    torch.manual_seed(0)
    model = EVA02Model(tiny_eva()).eval()
    pixels = noise(16)
    fast = hidden_states(model, pixels)
    model.set_attn_implementation("eager")
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(fast, hidden_states(model, pixels), strict=True))
    model.gradient_checkpointing_enable()
    model.train()(pixels).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
