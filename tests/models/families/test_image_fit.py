"""Images padded to a square: the very pixels of LLaVA, in training, in an export and in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from family_llava import FAMILY
from PIL import Image
from transformers import AutoProcessor, CLIPImageProcessorPil

from vlsafe import PretrainedVLLM, SafetyFineTuning
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components, Tuning
from vlsafe.models.export import export_model

MEAN = (122, 116, 104)
"""CLIP's mean colour, ``int(255 * mean)``, as it stands in LLaVA's llava/conversation.py too."""
SIZES = [(23, 16), (16, 23), (40, 9), (9, 41), (17, 17), (1, 30), (101, 77)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """LLaVA as it is on the hub: its CLIP processor cuts the centre out."""
    folder = tmp_path / "llava"
    folder.mkdir()
    FAMILY.write(folder).save_pretrained(folder)
    return folder


def padded(folder: Path, **options: str) -> PretrainedVLLM:
    return PretrainedVLLM(str(folder), image_fit="pad", dtype="float32", attention="sdpa", **FAMILY.options, **options)


def noise(size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def as_llava_does(image: Image.Image) -> torch.Tensor:
    """A square of the longer side in the mean colour, the image pasted in its middle, then CLIP's own processor."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), MEAN)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    clip = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return clip(square, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("size", SIZES)
def test_padded_pixels_are_llava_s(checkpoint: Path, size: tuple[int, int]) -> None:
    image = noise(size)
    found = padded(checkpoint).processor.image_processor(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, as_llava_does(image))


def test_the_bars_are_the_mean_colour(checkpoint: Path) -> None:
    """Black, 16 wide and 8 high: four rows of the mean colour above it and below it, about 0 once normalised."""
    processor = padded(checkpoint).processor.image_processor
    found = processor(Image.new("RGB", (16, 8)), return_tensors="pt")["pixel_values"][0]
    bars, middle = torch.cat([found[:, :3], found[:, -3:]], 1), found[:, 6:10]
    assert bars.abs().max() < 0.02
    black = [-1.7923, -1.7521, -1.4802]  # -mean / std
    assert torch.allclose(middle.mean((1, 2)), torch.tensor(black), atol=1e-3)


@pytest.mark.parametrize("size", [(23, 16), (9, 41)])
def test_the_checkpoint_s_own_processor_cuts_and_stays_the_default(checkpoint: Path, size: tuple[int, int]) -> None:
    own = PretrainedVLLM(str(checkpoint), **FAMILY.options).processor.image_processor
    found = own(noise(size), return_tensors="pt")["pixel_values"]
    assert not torch.equal(found, as_llava_does(noise(size)))


def test_a_saved_processor_pads_in_plain_transformers(checkpoint: Path, tmp_path: Path) -> None:
    padded(checkpoint).processor.save_pretrained(tmp_path / "out")
    plain = AutoProcessor.from_pretrained(tmp_path / "out")
    found = plain.image_processor(noise((23, 16)), return_tensors="pt")["pixel_values"]
    assert torch.equal(found, as_llava_does(noise((23, 16))))
    (checkpoint / "config.json").rename(tmp_path / "out" / "config.json")
    again = PretrainedVLLM(str(tmp_path / "out")).processor.image_processor
    assert torch.equal(again(noise((9, 41)), return_tensors="pt")["pixel_values"], as_llava_does(noise((9, 41))))
    assert "images become squares by: pad" in PretrainedVLLM(str(tmp_path / "out")).inferred()


def test_an_export_pads_and_plain_transformers_reads_it(checkpoint: Path, tmp_path: Path) -> None:
    module = SafetyFineTuning(padded(checkpoint), Components(Tuning(), Tuning("full", 1e-3)))
    module.configure_model()
    out = export_model(module, tmp_path / "model", "card")
    told = json.loads((out / "processor_config.json").read_text())["image_processor"]
    assert told["do_pad"] is True
    plain = AutoProcessor.from_pretrained(out).image_processor
    for size in SIZES:
        assert torch.equal(plain(noise(size), return_tensors="pt")["pixel_values"], as_llava_does(noise(size)))


def test_another_family_is_refused_before_weights_load(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "llava_next"}))
    with pytest.raises(ConfigError, match=r"image_fit: pad is for LLaVA checkpoints.*is of type 'llava_next'"):
        assert padded(checkpoint).processor


def test_an_adapter_s_own_processor_is_that_of_its_tuning(checkpoint: Path, tmp_path: Path) -> None:
    padded(checkpoint).processor.save_pretrained(tmp_path / "adapter")
    tuned = PretrainedVLLM(str(checkpoint), processor=str(tmp_path / "adapter")).processor
    assert tuned.chat_template == padded(checkpoint).processor.chat_template
    found = tuned.image_processor(noise((23, 16)), return_tensors="pt")["pixel_values"]
    assert torch.equal(found, as_llava_does(noise((23, 16))))
