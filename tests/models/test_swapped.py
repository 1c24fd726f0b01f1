"""Another vision encoder in a LLaVA checkpoint: the language model stays, the projector follows the widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import FULL, LORA, data, files, trainer
from tiny import IMAGE_ID, VISION, ask, composed, language_model, seeded_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, LlamaConfig

from vlsafe import PretrainedVLLM, SafetyFineTuning
from vlsafe.conversation import ImageRef
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components, Tuning
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.swapped import SwappedVLLM

WIDE = {**VISION["siglip"], "hidden_size": 24, "patch_size": 4}
"""Another width, and 16 patches instead of 4."""


@pytest.fixture(scope="module")
def llava(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA checkpoint with CLIP."""
    folder = tmp_path_factory.mktemp("llava")
    backbone = composed(tokenizer, projector_seed=7)
    seeded_model(backbone, 3).save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    return folder


def swapped(llava: Path, encoder: str = "siglip", weights: Any = WIDE, **options: Any) -> SwappedVLLM:
    return SwappedVLLM(str(llava), encoder, weights, **{"dtype": "float32", "attention": "sdpa"} | options)


def inputs(backbone: Backbone, *pictures: ImageRef) -> dict[str, Tensor]:
    return Collate(0)([Encoding(backbone.processor).sample(ask("colour?", "red", *pictures))]).inputs


@torch.inference_mode()
def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits


def test_the_language_model_stays_and_the_projector_fits_the_new_encoder(llava: Path, picture: ImageRef) -> None:
    before = PretrainedVLLM(str(llava), dtype="float32", attention="sdpa")
    after = swapped(llava)
    old, new = before.load_model().eval(), seeded_model(after)
    kept = {n: p for n, p in old.state_dict().items() if "vision_tower" not in n and "projector" not in n}
    assert kept and all(torch.equal(new.state_dict()[name], tensor) for name, tensor in kept.items())
    assert torch.equal(logits(new, inputs(after)), logits(old, inputs(before)))
    projector = new.model.multi_modal_projector
    assert (projector.linear_1.in_features, projector.linear_1.out_features) == (24, 16)
    batch = inputs(after, picture)
    assert int((batch["input_ids"] == IMAGE_ID).sum()) == 16 == new.config.image_seq_length
    assert after.processor.chat_template == before.processor.chat_template
    assert list(after.processor.image_processor.image_mean) == [0.5] * 3
    assert torch.isfinite(logits(new, batch)).all()
    assert after.component_of(new).keys() == dict(new.named_parameters()).keys()


def test_it_comes_back_whole(llava: Path, picture: ImageRef, tmp_path: Path) -> None:
    backbone = swapped(llava, "dinov2+siglip", [VISION["dinov2"], VISION["siglip"]], image_fit="crop")
    model, batch = seeded_model(backbone), inputs(backbone, picture)
    model.save_pretrained(tmp_path)
    backbone.processor.save_pretrained(tmp_path)
    again = PretrainedVLLM(str(tmp_path), dtype="float32", attention="sdpa")
    assert torch.equal(inputs(again, picture)["pixel_values"], batch["pixel_values"])
    assert torch.equal(logits(again.load_model().eval(), inputs(again, picture)), logits(model, batch))
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is type(model)


def test_a_new_projector_depends_on_its_seed_and_a_kept_one_is_the_checkpoints(llava: Path) -> None:
    def weight(**options: Any) -> Tensor:
        return seeded_model(swapped(llava, "dinov2", VISION["dinov2"], **options)).get_parameter(
            "model.multi_modal_projector.linear_1.weight"
        )

    original = PretrainedVLLM(str(llava), dtype="float32").load_model()
    assert torch.equal(weight(projector_seed=1), weight(projector_seed=1))
    assert not torch.equal(weight(projector_seed=1), weight(projector_seed=2))
    kept = weight(keep_projector=True)
    assert torch.equal(kept, original.get_parameter("model.multi_modal_projector.linear_1.weight"))


def test_a_kept_projector_keeps_its_activation_whatever_is_named(llava: Path, picture: ImageRef) -> None:
    backbone = swapped(llava, "clip", str(save_clip(llava)), keep_projector=True, projector="linear")
    model = backbone.load_model().eval()
    assert model.config.projector_hidden_act == "gelu"
    original = PretrainedVLLM(str(llava), dtype="float32", attention="sdpa")  # the same encoder: the same model
    assert torch.equal(
        logits(model, inputs(backbone, picture)), logits(original.load_model().eval(), inputs(original, picture))
    )


def save_clip(llava: Path) -> Path:
    folder = llava / "clip"
    PretrainedVLLM(str(llava), dtype="float32").load_model().model.vision_tower.save_pretrained(folder)
    return folder


def test_a_projector_of_another_width_cannot_be_kept(llava: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"keep_projector: the projector of .* reads features of width 16, the new enc"
    ):
        swapped(llava, keep_projector=True).processor  # noqa: B018


def test_only_llava_checkpoints_are_taken_apart(tokenizer: Path, tmp_path: Path) -> None:
    fields = {k: v for k, v in language_model(tokenizer).items() if k not in ("model_type", "tokenizer")}
    AutoModelForCausalLM.from_config(LlamaConfig(**fields)).save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"is of type 'llama'; vision encoders are swapped in 'llava' checkpoints only"
    ):
        swapped(tmp_path).processor  # noqa: B018


def test_the_first_stage_trains_the_projector_alone(llava: Path, tmp_path: Path) -> None:
    for components in (Components(Tuning(), FULL, Tuning()), Components(Tuning(), FULL, LORA)):
        tuned = SafetyFineTuning(swapped(llava), components, warmup_ratio=0.0, schedule="constant")
        tuned.configure_model()
        names = dict(tuned.named_parameters())
        before = {name: parameter.detach().clone() for name, parameter in names.items()}
        trainer(tmp_path, max_steps=1).fit(tuned, datamodule=data(files(tmp_path), batch_size=8))
        moved = {name for name, parameter in names.items() if not torch.equal(before[name], parameter)}
        projectors = {name for name, p in names.items() if "multi_modal_projector" in name and p.requires_grad}
        assert len(projectors) == 4 and projectors <= moved
        assert moved - projectors == {n for n in moved if "lora_B" in n}
        assert bool(moved - projectors) is (components.language.train == "lora")
