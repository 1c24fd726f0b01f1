"""What an original LLaVA folder's ``config.json`` says, checked, and the Hugging Face configs that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, PreTrainedTokenizerBase

from vlsafe.errors import ConfigError, DataError
from vlsafe.models.conversion.plan import vocabulary
from vlsafe.models.conversion.shards import read_json
from vlsafe.models.encoders.base import ImageFit

_ACTIVATIONS = {"linear": "linear", "mlp2x_gelu": "gelu"}
_FEATURES: dict[str, Literal["default", "full"]] = {"patch": "default", "cls_patch": "full"}
_FITS: dict[str, ImageFit] = {"pad": "pad", "square": "crop"}
_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "bos_token_id", "eos_token_id", "rope_theta", "rope_scaling", "attention_bias", "tie_word_embeddings",
)  # fmt: skip
_CLIP_LARGE = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
    projection_dim=768,
)  # fmt: skip
_TOWERS = {
    "openai/clip-vit-large-patch14": _CLIP_LARGE | {"image_size": 224},
    "openai/clip-vit-large-patch14-336": _CLIP_LARGE | {"image_size": 336},
}
"""Sizes of the encoders that LLaVA's authors use, for checkpoints that hold the encoder's weights themselves."""


@dataclass(frozen=True)
class Original:
    """An original LLaVA's config. ``tower``: the encoder's name; ``text`` has the vocabulary before it grows."""

    tower: str
    text: LlamaConfig
    vision: CLIPVisionConfig
    projector: str
    feature_layer: int
    features: Literal["default", "full"]
    fit: ImageFit

    @property
    def image_tokens(self) -> int:
        patches = (self.vision.image_size // self.vision.patch_size) ** 2
        return patches + (self.features == "full")

    def llava_config(self, tokenizer: PreTrainedTokenizerBase) -> LlavaConfig:
        """The new model's config; ``tokenizer`` has the picture and padding tokens already."""
        rows = vocabulary(len(tokenizer), self.text.vocab_size)
        text = LlamaConfig.from_dict(self.text.to_dict() | {"vocab_size": rows, "pad_token_id": tokenizer.pad_token_id})
        return LlavaConfig(
            vision_config=self.vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=self.image_tokens,
            projector_hidden_act=_ACTIVATIONS[self.projector],
            vision_feature_layer=self.feature_layer,
            vision_feature_select_strategy=self.features,
            tie_word_embeddings=text.tie_word_embeddings,
            architectures=["LlavaForConditionalGeneration"],
        )


def read_original(source: Path, vision_tower: Path | None) -> Original:
    """Read and check ``config.json`` of an original LLaVA folder, and that of the CLIP folder where there is one.

    Raises DataError, listing everything in it that cannot be converted, ConfigError where the encoder must be named.
    """
    file = source / "config.json"
    config = read_json(file)
    _refuse_other_layouts(config, file)
    tower = config["mm_vision_tower"]
    chosen: dict[str, tuple[Any, Mapping[Any, str]]] = {
        "mm_projector_type": (config.get("mm_projector_type", "linear"), _ACTIVATIONS),
        "mm_vision_select_feature": (config.get("mm_vision_select_feature", "patch"), _FEATURES),
        "image_aspect_ratio": (config.get("image_aspect_ratio") or "square", _FITS),
        "mm_use_im_start_end": (config.get("mm_use_im_start_end", False), {False: ""}),
    }
    problems = [
        f"{file}: {key} is {value!r}; what can be converted is {', '.join(map(repr, known))}"
        for key, (value, known) in chosen.items()
        if value not in known
    ]
    layer: Any = config.get("mm_vision_select_layer")
    if not isinstance(layer, int):
        problems.append(f"{file}: mm_vision_select_layer is {layer!r}, must be a number such as -2")
    if problems:
        raise DataError(problems)
    return Original(
        tower,
        LlamaConfig(**{name: config[name] for name in _TEXT_FIELDS if config.get(name) is not None}),
        _vision_config(tower, vision_tower),
        chosen["mm_projector_type"][0],
        layer,
        _FEATURES[chosen["mm_vision_select_feature"][0]],
        _FITS[chosen["image_aspect_ratio"][0]],
    )


def _refuse_other_layouts(config: dict[str, Any], file: Path) -> None:
    if "LlavaForConditionalGeneration" in (config.get("architectures") or []):
        raise DataError(f"{file}: this is Hugging Face layout already; use the folder as it is, with PretrainedVLLM")
    kind = config.get("model_type")
    if kind not in ("llava", "llava_llama") or "mm_vision_tower" not in config:
        raise DataError(
            f"{file}: model_type {kind!r} with{'' if 'mm_vision_tower' in config else 'out'} an mm_vision_tower is no "
            "LLaVA-1.5 of the original code base over Llama, which has model_type 'llava' or 'llava_llama'"
        )


def _vision_config(name: str, folder: Path | None) -> CLIPVisionConfig:
    if folder is not None:
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in ("clip", "clip_vision_model"):
            raise DataError(f"{folder / 'config.json'}: model_type is {kind!r}; LLaVA's encoder is a CLIP, {name}")
        return CLIPVisionConfig.from_pretrained(folder)
    if name not in _TOWERS:
        raise ConfigError(f"the encoder {name!r} has sizes unknown here; name its folder with --vision-tower")
    return CLIPVisionConfig(**_TOWERS[name])
