"""Every encoder: processor, config and model agree on tokens, layer, places and constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from joining import (
    CONSTANTS,
    EXTRA,
    FUSED,
    NAMES,
    batch_of,
    hidden_states,
    joined,
    noise,
    read_by_projector,
)
from PIL import Image
from tiny import IMAGE_ID, VISION, seeded_model

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError
from vlsafe.models.encoders import ENCODERS, vision_encoder_of
from vlsafe.models.encoders.base import VisionEncoder


@pytest.mark.parametrize("vision_tokens", ["patches", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_processor_config_and_model_count_the_same_tokens(
    name: str, vision_tokens: Any, tokenizer: Path, photo: ImageRef
) -> None:
    backbone = joined(tokenizer, name, vision_tokens=vision_tokens)
    model, batch = seeded_model(backbone), batch_of(backbone, photo)
    expected = 4 + (EXTRA.get(name, 0) if vision_tokens == "all" else 0)
    assert int((batch["input_ids"] == IMAGE_ID).sum()) == expected
    assert backbone.processor._get_num_multimodal_tokens([(20, 33)])["num_image_tokens"] == [expected]
    assert model.config.image_seq_length == expected
    assert len(model.get_image_features(batch["pixel_values"]).pooler_output[0]) == expected
    assert batch["pixel_values"].shape[-1] == model.config.vision_config.image_size
    assert torch.isfinite(model(**batch).logits).all()


@pytest.mark.parametrize("vision_tokens", ["patches", "all"])
@pytest.mark.parametrize("name", ENCODERS.names())
def test_the_projector_reads_the_layer_and_the_places_it_says(name: str, vision_tokens: Any, tokenizer: Path) -> None:
    backbone = joined(tokenizer, name, vision_tokens=vision_tokens)
    model, encoder = seeded_model(backbone), vision_encoder_of(name, VISION[name])
    tower = model.model.vision_tower
    own = encoder.load().eval()  # the class of transformers (or ours) itself
    own.load_state_dict({k.removeprefix("encoders.0."): v for k, v in tower.state_dict().items()})
    pixels = noise(encoder.config.image_size)
    hidden = hidden_states(own, pixels)
    expected = hidden[-1] if name == "efficientnet_lite0" else hidden[-2]
    if vision_tokens == "patches":
        expected = expected[:, EXTRA.get(name, 0) :]
    read = read_by_projector(model, pixels)
    assert torch.equal(read, expected)
    assert read.shape[-1] == model.model.multi_modal_projector.linear_1.in_features
    if len(hidden) > 1:
        assert not torch.allclose(read, hidden[-1][:, -read.shape[1] :], atol=1e-3)


@pytest.mark.parametrize("fit", ["pad", "crop", "resize"])
@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_normalised_with_the_encoders_own_constants(name: str, fit: Any, tokenizer: Path) -> None:
    processor = joined(tokenizer, name, image_fit=fit).processor.image_processor
    pixels = torch.as_tensor(processor(Image.new("RGB", (40, 40), (255, 128, 0)), return_tensors="pt")["pixel_values"])
    mean, std = (torch.tensor(constants) for constants in CONSTANTS[name])
    expected = (torch.tensor([1.0, 128 / 255, 0.0]) - mean) / std
    assert torch.allclose(pixels[0, :, 5, 5], expected, atol=1e-5)


def test_constants_that_the_weights_state_are_taken(tokenizer: Path, tmp_path: Path) -> None:
    ENCODERS["siglip"](VISION["siglip"]).load().save_pretrained(tmp_path)
    encoder = ENCODERS["siglip"](str(tmp_path))
    assert list(encoder.image_processor("pad").image_mean) == [0.5] * 3
    assert encoder.image_processor("pad").resample == 3
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "resample": 2}')
    processor = ENCODERS["siglip"](str(tmp_path)).image_processor("pad")
    assert (list(processor.image_mean), list(processor.image_std)) == ([0.1, 0.2, 0.3], [0.5] * 3)
    assert processor.resample == 2
    assert ENCODERS["siglip2"](VISION["siglip"]).image_processor("pad").resample == 2  # SigLIP 2 is bilinear


def test_the_projector_is_as_wide_as_the_encoder(tokenizer: Path) -> None:
    wide = {**VISION["siglip"], "hidden_size": 24}
    model = seeded_model(joined(tokenizer, FUSED, [VISION["dinov2"], wide]))
    assert model.model.multi_modal_projector.linear_1.in_features == 16 + 24 == model.config.vision_config.hidden_size


def test_every_encoder_names_what_it_must() -> None:
    for name in ENCODERS:
        encoder = ENCODERS[name]
        assert issubclass(encoder, VisionEncoder) and encoder.default_weights and encoder.__doc__


@pytest.mark.parametrize(
    ("name", "weights", "size", "message"),
    [
        ("clip+siglip", [{}], None, "'clip\\+siglip' needs vision_weights as a list of 2, in its order"),
        ("clip+siglip", "folder", None, "needs vision_weights as a list of 2"),
        ("clip", [{}], None, "vision_weights is a list, but vision_encoder 'clip' is a single encoder"),
        ("clip+dinov2", None, 32, "CLIP has one image size, that of its weights; leave image_size out"),
        ("siglip", None, 32, "SigLIP has one image size"),
        ("clip+dino", None, None, "unknown vision encoder 'dino'. Did you mean 'dinov2'"),
        ("nowhere.Encoder", None, None, "'nowhere.Encoder' cannot be imported: No module named 'nowhere'"),
        ("vlsafe.Nothing", None, None, "'vlsafe.Nothing' cannot be imported"),
        ("pathlib.Path", None, None, "'pathlib.Path' is no subclass of vlsafe.models.encoders.base.VisionEncoder"),
    ],
)
def test_a_wrong_encoder_fails_before_anything_is_read(name: str, weights: Any, size: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vision_encoder_of(name, weights, size)


def test_a_class_of_ones_own(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_eyes.py").write_text(
        "from vlsafe.models.encoders.clip import CLIP\n\n\nclass Shallow(CLIP):\n    feature_layer = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = seeded_model(joined(tokenizer, "my_eyes.Shallow", VISION["clip"]))
    assert model.config.vision_feature_layer == 1
    pixels = noise(16)
    assert torch.equal(read_by_projector(model, pixels), hidden_states(model.model.vision_tower, pixels)[1][:, 1:])
    both = seeded_model(joined(tokenizer, "my_eyes.Shallow+siglip", [VISION["clip"], VISION["siglip"]]))
    assert read_by_projector(both, pixels).shape == (2, 4, 32)
