"""Weights of encoders: what is read, what is refused, and what a saved model gives in a new process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from joining import (
    FUSED,
    batch_of,
    hidden_states,
    joined,
    noise,
)
from tiny import VISION, seeded_model
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Model,
    Siglip2VisionConfig,
    SiglipConfig,
    SiglipModel,
)

from vlsafe import ComposedVLLM
from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError
from vlsafe.models.encoders import ENCODERS


@pytest.mark.parametrize(
    ("name", "whole", "config"), [("clip", CLIPModel, CLIPConfig), ("siglip", SiglipModel, SiglipConfig)]
)
def test_the_encoder_of_a_whole_model_is_read(name: str, whole: Any, config: Any, tmp_path: Path) -> None:
    text = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    model = whole(config(text_config=text, vision_config=VISION[name])).eval()
    model.save_pretrained(tmp_path)
    pixels = noise(16)
    loaded = ENCODERS[name](str(tmp_path)).load().eval()
    assert torch.equal(hidden_states(loaded, pixels)[-2], hidden_states(model.vision_model, pixels)[-2])


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    Siglip2VisionConfig(hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path / "naflex")
    with pytest.raises(ConfigError, match=r"naflex holds a model of type 'siglip2_vision_model', which is no SigLIP2"):
        ENCODERS["siglip2"](str(tmp_path / "naflex")).config  # noqa: B018
    encoder = ENCODERS["dinov2"](VISION["dinov2"])
    encoder.load().save_pretrained(tmp_path / "dino")
    with pytest.raises(ConfigError, match=r"dino holds a model of type 'dinov2', which is no CLIP"):
        ENCODERS["clip"](str(tmp_path / "dino")).config  # noqa: B018


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    model = ENCODERS["clip"](VISION["clip"]).load()
    state = {k: v for k, v in model.state_dict().items() if "layers.1.mlp.fc1.weight" not in k}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ConfigError, match=r"lacks 1 tensors of CLIP, first '.*layers\.1\.mlp\.fc1\.weight'"):
        ENCODERS["clip"](str(tmp_path)).load()


@pytest.mark.parametrize("name", ["dinov2", "dinov2_registers"])
def test_dinov2_in_another_size_is_as_it_resamples_itself(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = ENCODERS[name]({**VISION[name], "image_size": 40}).load().eval()
    original.save_pretrained(tmp_path / "weights")
    smaller = ENCODERS[name](str(tmp_path / "weights"), 26)
    model = smaller.load().eval()
    pixels = noise(26)
    expected = hidden_states(original, pixels)
    assert all(torch.equal(a, b) for a, b in zip(hidden_states(model, pixels), expected, strict=True))
    assert model.config.image_size == smaller.config.image_size == 26 and smaller.grid == 3
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(hidden_states(again, pixels)[-2], expected[-2])
    assert isinstance(again, Dinov2Model) is (name == "dinov2")


RELOAD = """
import sys, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
stock, own = (names.split(",") for names in sys.argv[2:4])
torch.set_num_threads(int(sys.argv[4]))  # a convolution rounds by how many threads share it
for name in stock + own:
    if name == own[0]:
        assert "vlsafe" not in sys.modules
        import vlsafe.models.encoders
    folder = f"{sys.argv[1]}/{name}"
    kept = torch.load(f"{folder}.pt", weights_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.inference_mode():
        assert torch.equal(model(**kept["inputs"]).logits, kept["logits"]), name
    processor, picture = AutoProcessor.from_pretrained(folder), Image.open(kept["picture"])
    made = processor(text=["<image>a"], images=[picture], return_tensors="pt")
    assert torch.equal(made["pixel_values"], kept["inputs"]["pixel_values"]), name
    assert (made["input_ids"] == model.config.image_token_id).sum() == model.config.image_seq_length, name
    print(name)
"""


@pytest.mark.slow
def test_saved_models_load_in_a_new_process_with_equal_logits(tokenizer: Path, photo: ImageRef, tmp_path: Path) -> None:
    """Stock encoders in plain transformers, where vlsafe is never imported; ours once transformers knows them."""
    stock = ["clip", "siglip", "siglip2", "dinov2", "registers-kept"]
    own = ["dinov2_registers", "efficientnet_lite0", "eva02", FUSED]
    for name in stock[:-1] + own:
        save(joined(tokenizer, name), photo, tmp_path / name)
    save(joined(tokenizer, "dinov2_registers", vision_tokens="all"), photo, tmp_path / stock[-1])
    names = [",".join(stock), ",".join(own)]
    command = [sys.executable, "-c", RELOAD, str(tmp_path), *names, str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == stock + own


def save(backbone: ComposedVLLM, photo: ImageRef, folder: Path) -> None:
    model, batch = seeded_model(backbone), batch_of(backbone, photo)
    with torch.inference_mode():
        logits = model(**batch).logits
    model.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    torch.save({"inputs": batch, "logits": logits, "picture": str(photo)}, f"{folder}.pt")
