"""Encoders, projectors and language models joined: as many placeholders as features, and weights that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import IMAGE_ID, PATCHES, VISION, ask, composed, language_model, save_tokenizer, seeded_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, LlamaConfig

from vlsafe import ComposedVLLM, PretrainedVLLM
from vlsafe.conversation import ImageRef
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.errors import ConfigError
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.encoders import ENCODERS
from vlsafe.models.projectors import PROJECTORS


def inputs(backbone: Backbone, picture: ImageRef) -> dict[str, Tensor]:
    """A picture row and a text row."""
    encoding = Encoding(backbone.processor)
    return Collate(0)([encoding.sample(ask("colour?", "red", picture)), encoding.sample(ask("hi", "yes"))]).inputs


@torch.inference_mode()
def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits


# --- every encoder


@pytest.mark.parametrize("encoder", ENCODERS.names())
def test_placeholders_are_as_many_as_features_and_the_picture_reaches_the_answer(
    encoder: str, tokenizer: Path, picture: ImageRef
) -> None:
    backbone = composed(tokenizer, encoder)
    model, batch = seeded_model(backbone), inputs(backbone, picture)
    features = model.get_image_features(batch["pixel_values"]).pooler_output
    assert (batch["input_ids"] == IMAGE_ID).sum() == len(features[0]) == PATCHES == model.config.image_seq_length
    shown = logits(model, batch)
    other = logits(model, batch | {"pixel_values": -batch["pixel_values"]})
    assert torch.isfinite(shown).all()
    assert not torch.allclose(shown[0, -5:], other[0, -5:])
    assert torch.equal(shown[1], other[1])


@pytest.mark.parametrize("encoder", ENCODERS.names())
def test_a_saved_model_comes_back_whole_and_in_plain_transformers(
    encoder: str, tokenizer: Path, picture: ImageRef, tmp_path: Path
) -> None:
    backbone = composed(tokenizer, encoder)
    model, batch = seeded_model(backbone), inputs(backbone, picture)
    model.save_pretrained(tmp_path)
    backbone.processor.save_pretrained(tmp_path)
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(logits(model, batch), logits(again.eval(), batch))
    assert AutoProcessor.from_pretrained(tmp_path).chat_template == backbone.processor.chat_template

    pretrained = PretrainedVLLM(str(tmp_path), dtype="float32", attention="sdpa")
    assert torch.equal(inputs(pretrained, picture)["input_ids"], batch["input_ids"])
    assert torch.equal(logits(pretrained.load_model().eval(), inputs(pretrained, picture)), logits(model, batch))


@pytest.mark.parametrize("encoder", ENCODERS.names())
def test_components_hold_every_parameter_once(encoder: str, tokenizer: Path, tmp_path: Path) -> None:
    backbone = composed(tokenizer, encoder)
    model = seeded_model(backbone)
    owner = backbone.component_of(model)
    assert set(owner) == {name for name, _ in model.named_parameters()}
    assert owner["lm_head.weight"] == owner["model.language_model.embed_tokens.weight"] == "language"
    assert owner["model.multi_modal_projector.linear_1.weight"] == "projector"
    assert {owner[name] for name in owner if "vision_tower" in name} == {"vision"}
    model.save_pretrained(tmp_path)
    assert PretrainedVLLM(str(tmp_path)).component_of(model) == owner


def test_an_unknown_encoder_lists_the_names(tokenizer: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ComposedVLLM("cilp", language_model(tokenizer))
    assert str(caught.value) == (
        "unknown vision encoder 'cilp'. Did you mean 'clip'? Valid names: clip, dinov2, dinov2_registers, "
        "efficientnet_lite0, eva02, siglip, siglip2"
    )
    with pytest.raises(ConfigError, match=r"unknown projector 'mlp'. Valid names: linear, mlp2x_gelu"):
        composed(tokenizer, projector="mlp")


# --- pictures


def test_a_wide_picture_is_padded_cropped_or_squeezed_as_told(tokenizer: Path, tmp_path: Path) -> None:
    from PIL import Image

    wide = Image.new("RGB", (32, 16), "red")
    wide.paste("blue", (24, 0, 32, 16))
    red: dict[str, Tensor] = {}
    for fit in ("pad", "crop", "resize"):
        processor = composed(tokenizer, image_fit=fit).processor.image_processor
        pixels = torch.as_tensor(processor(wide, return_tensors="pt")["pixel_values"])
        assert pixels.shape == (1, 3, 16, 16)
        mean, std = (torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std))
        red[fit] = (pixels[0] * std + mean)[:, :, :]
    mean_colour = torch.tensor(composed(tokenizer).processor.image_processor.image_mean)
    assert torch.allclose(red["pad"][:, 0, 8], mean_colour, atol=0.01)  # filled above and below with the mean colour
    assert red["pad"][0, 8, 2] > 0.9
    assert red["crop"][2].max() < 0.1  # the blue edge was cut off
    assert red["resize"][2, :, 14].min() > 0.9 and red["resize"][0, 0, 0] > 0.9


def test_efficientnet_reads_pixels_as_its_weights_expect(tokenizer: Path) -> None:
    from PIL import Image

    processor = composed(tokenizer, "efficientnet_lite0").processor.image_processor
    white = torch.as_tensor(processor(Image.new("RGB", (64, 64), "white"), return_tensors="pt")["pixel_values"])
    assert torch.allclose(white, torch.ones_like(white), atol=1e-5)  # (255 - 127) / 128


# --- projectors


def test_the_linear_projector_is_linear_and_the_mlp_is_not(tokenizer: Path) -> None:
    a, b = torch.randn(2, 5, 16).unbind()
    for name, linear in (("linear", True), ("mlp2x_gelu", False)):
        project = seeded_model(composed(tokenizer, projector=name)).model.multi_modal_projector
        zero = project(torch.zeros(5, 16))
        together = project(a + b) - zero
        apart = (project(a) - zero) + (project(b) - zero)
        assert torch.allclose(together, apart, atol=1e-6) is linear


@pytest.mark.parametrize("name", PROJECTORS.names())
def test_pictures_start_no_larger_than_words(name: str, tokenizer: Path, picture: ImageRef) -> None:
    backbone = composed(tokenizer, projector=name)
    model = seeded_model(backbone)
    features = torch.cat(model.get_image_features(inputs(backbone, picture)["pixel_values"]).pooler_output)
    words = model.get_input_embeddings().weight.std()
    assert 0.2 < features.std() / words < 5


def test_the_projector_depends_on_its_seed_alone(tokenizer: Path) -> None:
    def weight(seed: int, projector_seed: int) -> Tensor:
        return seeded_model(
            composed(tokenizer, projector_seed=projector_seed), seed
        ).model.multi_modal_projector.linear_1.weight

    assert torch.equal(weight(0, 5), weight(1, 5))
    assert not torch.equal(weight(0, 5), weight(0, 6))


# --- language models


def test_text_alone_gets_the_language_models_own_logits(tokenizer: Path, picture: ImageRef, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fields = {k: v for k, v in language_model(tokenizer).items() if k not in ("model_type", "tokenizer")}
    language = AutoModelForCausalLM.from_config(LlamaConfig(**fields)).eval()
    language.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    backbone = ComposedVLLM("clip", str(tmp_path), vision_weights=VISION["clip"], attention="sdpa")
    model = backbone.load_model().eval()
    batch = {k: v[1:] for k, v in inputs(backbone, picture).items() if k != "pixel_values"}
    assert torch.allclose(logits(model, batch)[..., :IMAGE_ID], logits(language, batch), atol=1e-6)


def test_a_model_with_tied_embeddings_stays_tied(tokenizer: Path, picture: ImageRef, tmp_path: Path) -> None:
    backbone = composed(tokenizer, language=language_model(tokenizer, tie_word_embeddings=True))
    model, batch = seeded_model(backbone), inputs(backbone, picture)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert torch.equal(logits(model, batch), logits(again, batch))


def test_a_language_model_whose_head_does_more_is_refused(tokenizer: Path) -> None:
    fields = language_model(tokenizer) | {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": 30.0}
    with pytest.raises(
        ConfigError, match=r"gemma2 changes its logits by final_logit_softcapping=30.0, which a LLaVA head"
    ):
        composed(tokenizer, language=fields).load_model()


def test_a_random_language_model_needs_a_tokenizer() -> None:
    with pytest.raises(
        ConfigError, match=r"language_model is a mapping without 'tokenizer': say where its tokenizer is"
    ):
        ComposedVLLM("clip", {"model_type": "llama"}, vision_weights=VISION["clip"]).processor  # noqa: B018


def test_weights_are_kept_in_the_precision_asked_for(tokenizer: Path) -> None:
    model = seeded_model(composed(tokenizer, dtype="bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


# --- a user's own


def test_modules_that_do_not_fit_the_model_are_named(tokenizer: Path) -> None:
    class Partial(ComposedVLLM):
        def modules_of(self, model: Any) -> dict:
            return {"vision": ["model.tower"], "projector": ["model.multi_modal_projector"], "language": ["lm_head"]}

    backbone = Partial("clip", language_model(tokenizer), vision_weights=VISION["clip"])
    with pytest.raises(ConfigError) as caught:
        backbone.component_of(backbone.load_model())
    assert "Partial.modules_of names 'model.tower', which the model does not have" in str(caught.value)
    assert "parameter 'model.vision_tower.embeddings.class_embedding' belongs to no component of Partial" in str(
        caught.value
    )


def test_a_checkpoint_without_a_chat_template_says_what_to_name(tokenizer: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the checkpoint brings no chat template; name one with model.backbone.template"
    ):
        composed(tokenizer, template=None).processor  # noqa: B018
