"""Vision encoders: what the projector reads is what transformers' own model says at the layer and places named."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import FROZEN, FULL, changed, data, files, module, tensors, trainer
from PIL import Image
from tiny import IMAGE_ID, VISION, ask, language_model, seeded_model
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Model,
    PreTrainedModel,
    Siglip2VisionConfig,
    SiglipConfig,
    SiglipModel,
)

from vlsafe import ComposedVLLM
from vlsafe.conversation import ImageRef
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components
from vlsafe.models.encoders import ENCODERS, eva02, vision_encoder_of
from vlsafe.models.encoders.base import VisionEncoder
from vlsafe.models.encoders.eva02_model import EVA02Config, EVA02Model, rotary_angles, rotated
from vlsafe.models.encoders.fused import PatchFeatures

FUSED = "dinov2+siglip"
WEIGHTS: dict[str, Any] = {**VISION, FUSED: [VISION["dinov2"], VISION["siglip"]]}
NAMES = sorted([*ENCODERS.names(), FUSED])
EXTRA = {"clip": 1, "dinov2": 1, "dinov2_registers": 5, "eva02": 1}
"""Tokens before the patches; the others have none."""
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CONSTANTS = {
    "clip": (CLIP_MEAN, CLIP_STD),
    "eva02": (CLIP_MEAN, CLIP_STD),
    "dinov2": (IMAGENET_MEAN, IMAGENET_STD),
    "dinov2_registers": (IMAGENET_MEAN, IMAGENET_STD),
    "siglip": ([0.5] * 3, [0.5] * 3),
    "siglip2": ([0.5] * 3, [0.5] * 3),
    "efficientnet_lite0": ([127 / 255] * 3, [128 / 255] * 3),
    FUSED: (IMAGENET_MEAN, IMAGENET_STD),
}


def joined(tokenizer: Path, encoder: str, weights: Any = None, **options: Any) -> ComposedVLLM:
    weights = WEIGHTS[encoder] if weights is None else weights
    return ComposedVLLM(encoder, language_model(tokenizer), weights, attention="sdpa", **options)


def batch_of(backbone: ComposedVLLM, picture: ImageRef) -> dict[str, Tensor]:
    encoding = Encoding(backbone.processor)
    return Collate(0)([encoding.sample(ask("colour?", "red", picture))]).inputs


def noise(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def read_by_projector(model: Any, pixels: Tensor) -> Tensor:
    """What goes into the projector: [pictures, tokens, width]."""
    seen: list[Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.get_image_features(pixels)
    hook.remove()
    return seen[0]


@torch.inference_mode()
def hidden_states(tower: PreTrainedModel, pixels: Tensor) -> tuple[Tensor, ...]:
    return tower(pixels, output_hidden_states=True).hidden_states


@pytest.fixture
def photo(tmp_path: Path) -> ImageRef:
    """A wide picture without symmetry."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 33, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    return ImageRef(tmp_path, "p.png")


# --- the same facts for processor, config and model


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


# --- two side by side


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


def test_grids_that_differ_are_refused() -> None:
    fused = vision_encoder_of("clip+siglip", [VISION["clip"], {**VISION["siglip"], "image_size": 24}])
    with pytest.raises(ConfigError) as caught:
        fused.config  # noqa: B018
    assert str(caught.value) == (
        "fused encoders must see as many patches: CLIP has 2 x 2 (16 px / 8), SigLIP has 3 x 3 (24 px / 8); "
        "choose weights of other sizes"
    )


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


# --- weights


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


# --- EVA-02


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


# --- in training, and out of it


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


RELOAD = """
import sys, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
stock, own = (names.split(",") for names in sys.argv[2:])
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


def test_saved_models_load_in_a_new_process_with_equal_logits(tokenizer: Path, photo: ImageRef, tmp_path: Path) -> None:
    """Stock encoders in plain transformers, where vlsafe is never imported; ours once transformers knows them."""
    stock = ["clip", "siglip", "siglip2", "dinov2", "registers-kept"]
    own = ["dinov2_registers", "efficientnet_lite0", "eva02", FUSED]
    for name in stock[:-1] + own:
        save(joined(tokenizer, name), photo, tmp_path / name)
    save(joined(tokenizer, "dinov2_registers", vision_tokens="all"), photo, tmp_path / stock[-1])
    command = [sys.executable, "-c", RELOAD, str(tmp_path), ",".join(stock), ",".join(own)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == stock + own


def save(backbone: ComposedVLLM, photo: ImageRef, folder: Path) -> None:
    model, batch = seeded_model(backbone), batch_of(backbone, photo)
    with torch.inference_mode():
        logits = model(**batch).logits
    model.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    torch.save({"inputs": batch, "logits": logits, "picture": str(photo)}, f"{folder}.pt")


def test_every_encoder_names_what_it_must() -> None:
    for name in ENCODERS:
        encoder = ENCODERS[name]
        assert issubclass(encoder, VisionEncoder) and encoder.default_weights and encoder.__doc__
