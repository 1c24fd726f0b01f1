"""What PretrainedVLLM finds in a checkpoint, also one that nobody has named to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_google import PALIGEMMA
from family_llava import FAMILY as LLAVA
from family_qwen import QWEN3
from making import CLIP, SIGLIP, Family, language
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AyaVisionConfig,
    Mistral3Config,
    PretrainedConfig,
    PreTrainedModel,
    VipLlavaConfig,
)

from vlsafe import PretrainedVLLM
from vlsafe.errors import ConfigError
from vlsafe.models.backbones.anatomy import anatomy

UNKNOWN: list[PretrainedConfig] = [
    AyaVisionConfig(vision_config=SIGLIP, text_config=language(Path(), 99, "cohere2")),
    Mistral3Config(vision_config=SIGLIP | {"model_type": "pixtral"}, text_config=language(Path(), 99, "mistral")),
    VipLlavaConfig(vision_config=CLIP, text_config=language(Path(), 99)),
]


@pytest.mark.parametrize("config", UNKNOWN, ids=lambda config: config.model_type)
def test_the_parts_of_a_family_that_nobody_named_hold_every_parameter_once(config: PretrainedConfig) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    parts = anatomy(model)
    assert parts["vision"] == ["model.vision_tower"] and parts["projector"] == ["model.multi_modal_projector"]
    held = [
        [path for found in parts.values() for path in found if f"{n}.".startswith(f"{path}.")] for n in names(model)
    ]
    assert all(len(paths) == 1 for paths in held)


def names(model: PreTrainedModel) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_a_model_without_a_vision_encoder_says_what_is_missing() -> None:
    config = AutoConfig.for_model(**language(Path(), 99))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(
        ConfigError, match="LlamaForCausalLM: transformers names no decoder and no vision encoder in it"
    ):
        anatomy(model)


@pytest.mark.parametrize(
    ("family", "lines"),
    [
        (
            PALIGEMMA,
            [
                "processor: PaliGemmaProcessor with SiglipImageProcessorPil",
                "picture token: <image> (4)",
                "chat template: ours, paligemma; an answer ends with <eos>",
                "family: paligemma (PaliGemmaForConditionalGeneration), with code of its own",
                "vision: model.vision_tower",
                "projector: model.multi_modal_projector",
                "language: model.language_model, lm_head",
            ],
        ),
        (
            QWEN3,
            [
                "processor: Qwen3VLProcessor with Qwen2VLImageProcessorPil",
                "picture token: <|image_pad|> (5)",
                "chat template: the checkpoint's own; an answer ends with <|im_end|>",
                "family: qwen3_vl (Qwen3VLForConditionalGeneration), no code of its own",
                "vision: model.visual.patch_embed, model.visual.pos_embed, model.visual.blocks",
                "projector: model.visual.merger, model.visual.deepstack_merger_list",
                "language: model.language_model, lm_head",
            ],
        ),
    ],
    ids=["paligemma", "qwen3_vl"],
)
def test_what_was_found_is_said_before_weights_are_read(family: Family, lines: list[str], tmp_path: Path) -> None:
    family.write(tmp_path).config.save_pretrained(tmp_path)  # no weights
    assert PretrainedVLLM(str(tmp_path)).inferred() == lines


def test_a_template_without_an_end_token_is_said_to_be_unfit_for_tuning(tmp_path: Path) -> None:
    LLAVA.write(tmp_path).config.save_pretrained(tmp_path)
    (line,) = [line for line in PretrainedVLLM(str(tmp_path)).inferred() if line.startswith("chat template")]
    assert line == "chat template: the checkpoint's own; an answer ends with no token, so it cannot be tuned with it"
