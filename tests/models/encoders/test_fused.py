"""Two encoders side by side, in training and out of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import FROZEN, FULL, changed, data, files, module, tensors, trainer
from joining import (
    CLIP_MEAN,
    CLIP_STD,
    FUSED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    WEIGHTS,
    batch_of,
    hidden_states,
    joined,
    noise,
    read_by_projector,
)
from tiny import VISION, seeded_model
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components
from vlsafe.models.encoders import ENCODERS, vision_encoder_of
from vlsafe.models.encoders.fused import PatchFeatures


def test_both_see_the_same_crop_with_their_own_constants(tokenizer: Path, photo: ImageRef) -> None:
    backbone = joined(tokenizer, FUSED, image_fit="crop")
    model = seeded_model(backbone)
    seen: dict[str, Tensor] = {}
    for place, part in model.model.vision_tower.encoders.items():
        part.register_forward_pre_hook(lambda _, inputs, place=place: seen.update({place: inputs[0]}))
    pixels = batch_of(backbone, photo)["pixel_values"]
    read = read_by_projector(model, pixels)
    raw = pixels * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    assert torch.equal(seen["0"], pixels)
    assert torch.allclose(seen["1"], (raw - 0.5) / 0.5, atol=1e-5)
    apart = [hidden_states(part, seen[place])[-2] for place, part in model.model.vision_tower.encoders.items()]
    assert torch.equal(read, torch.cat([apart[0][:, 1:], apart[1]], dim=-1))


def side_by_side(name: str, weights: list[Any], image_size: int | None = None) -> PatchFeatures:
    encoder = vision_encoder_of(name, weights, image_size)
    assert isinstance(encoder, PatchFeatures)
    return encoder


def test_parts_of_any_size_follow_the_fixed_one() -> None:
    siglip = {**VISION["siglip"], "image_size": 26}  # 3 x 3 patches of 8, two pixels at the edge fill none
    same = side_by_side("dinov2+siglip", [VISION["dinov2"], siglip])
    assert [part.config.image_size for part in same.parts] == [26, 26] and same.grid == 3
    other = side_by_side("dinov2+siglip", [{**VISION["dinov2"], "patch_size": 6}, siglip])
    assert [part.config.image_size for part in other.parts] == [18, 26] and other.grid == 3
    free = side_by_side("dinov2+dinov2_registers", [VISION["dinov2"], VISION["dinov2_registers"]], 32)
    assert [part.config.image_size for part in free.parts] == [32, 32]
    assert free.load()(noise(32)).last_hidden_state.shape == (2, 16, 32)


def test_a_part_of_another_size_sees_the_picture_scaled_down() -> None:
    large = {**VISION["siglip"], "image_size": 32, "patch_size": 16}
    fused = vision_encoder_of("clip+siglip", [VISION["clip"], large])
    assert fused.config.image_size == 32 and fused.config.patch_size == 16
    assert list(fused.image_processor("pad").image_mean) == [0.5] * 3  # the pictures are prepared for the larger part
    model = fused.load().eval()
    seen: list[Tensor] = []
    model.encoders["0"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    grey = torch.zeros(1, 3, 32, 32)  # 0.5 before SigLIP's normalisation
    assert model(grey).last_hidden_state.shape == (1, 4, 32)
    expected = (0.5 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert torch.allclose(seen[0], expected[:, None, None].expand(1, 3, 16, 16), atol=1e-5)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_parts_load_again_in_the_dtype_of_the_whole(
    tokenizer: Path, photo: ImageRef, tmp_path: Path, dtype: str
) -> None:
    """Their own configs, read from float32 weights, say float32."""
    for name in ("dinov2", "siglip"):
        ENCODERS[name](VISION[name]).load().save_pretrained(tmp_path / name)
    weights = [str(tmp_path / "dinov2"), str(tmp_path / "siglip")]
    backbone = joined(tokenizer, "dinov2+siglip", weights, dtype="bfloat16")
    made = backbone.load_model().eval()
    made.save_pretrained(tmp_path / "model")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=dtype).eval()
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    batch = batch_of(backbone, photo)
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    assert torch.equal(again(**batch).logits, made(**batch).logits)


def test_grids_that_differ_are_refused() -> None:
    fused = vision_encoder_of("clip+siglip", [VISION["clip"], {**VISION["siglip"], "image_size": 24}])
    with pytest.raises(ConfigError) as caught:
        fused.config  # noqa: B018
    assert str(caught.value) == (
        "fused encoders must see as many patches: CLIP has 2 x 2 (16 px / 8), SigLIP has 3 x 3 (24 px / 8); "
        "choose weights of other sizes"
    )


def step(made: Any, folder: Path) -> set[str]:
    """Names of the encoder's tensors that one optimizer step changed."""
    made.configure_model()
    before = tensors(made)
    trainer(folder, max_steps=1).fit(made, datamodule=data(folder, batch_size=8))
    made.train()
    return {name for name in changed(before, tensors(made)) if "vision_tower" in name}


def test_encoders_side_by_side_stay_or_learn_as_told(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = "dinov2+efficientnet_lite0"
    monkeypatch.setitem(VISION, pair, [VISION["dinov2"], VISION["efficientnet_lite0"]])
    folder = files(tmp_path)
    frozen = module(tokenizer, encoder=pair)
    assert step(frozen, folder) == set()
    assert not any(part.training for name, part in frozen.named_modules() if "vision_tower" in name)

    moved = step(module(tokenizer, Components(FULL, FROZEN, FROZEN), pair), folder)
    assert any("encoders.0.encoder.layer.1." in name for name in moved)
    assert not any("encoders.0.encoder.layer.2." in name for name in moved)  # after the layer that is read
    assert any("encoders.1." in name and "running_mean" in name for name in moved)


@pytest.mark.parametrize("name", ["dinov2_registers", "eva02", FUSED])
def test_the_last_layers_of_every_part_train(
    name: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VISION, name, WEIGHTS[name])
    moved = step(module(tokenizer, Components(replace(FULL, last_layers=1), FROZEN, FROZEN), name), files(tmp_path))
    layers = {re.search(r"(?:layers?|blocks)\.(\d)\.", tensor) for tensor in moved}
    assert {layer and layer[1] for layer in layers} == {"1"}  # of three, the last one is not read
    if name == FUSED:
        assert {re.search(r"encoders\.(\d)", tensor)[1] for tensor in moved} == {"0", "1"}  # type: ignore[index]
