"""Checkpoints of a config's own architectures with few, narrow layers and random weights, written as real folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig

import vlsafe.models.encoders  # these two tell transformers of model types of ours
import vlsafe.models.minigpt  # noqa: F401
from vlsafe.errors import ConfigError
from vlsafe.models.encoders.base import VisionEncoder
from vlsafe.rehearsal.published import SHAPES, has_tokenizer

SIZES = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "embed_dim", "depth", "num_heads", "mlp_ratio", "out_hidden_size", "fullatt_block_indexes",
    "deepstack_visual_indexes", "cross_attention_layers", "layer_types", "mrope_section", "intermediate_layers_indices",
    "vision_output_dim", "num_global_layers", "attention_heads", "projection_dim", "vision_feature_layer",
}  # fmt: skip
"""Keys of a config that say how deep and wide a model is, or that depend on it. All others are the checkpoint's own:
picture and patch size, vocabulary, activations, token ids, precision."""
_OF_EVERY_LAYER = {"out_features", "out_indices", "stage_names"}
"""Names of single layers, which transformers makes anew for as many as there are."""
_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".gguf", ".msgpack", ".h5", ".onnx")
_SHARD = "100KB"
"""Several files of weights, as large checkpoints have."""


def small_vlm(folder: Path, out: Path) -> None:
    """An image-text-to-text checkpoint in ``out`` like the one in ``folder``, of which no weights are read."""
    config = AutoConfig.from_pretrained(folder)
    shape = SHAPES / config.model_type
    if shape.is_dir():
        fields = with_sizes(config.to_dict(), AutoConfig.from_pretrained(shape).to_dict())
    else:
        fields = _fewer_layers(config.to_dict())
    _copy_small_files(folder if has_tokenizer(folder) else shape, out)
    _write(AutoModelForImageTextToText, _config(fields, config), out)


def small_language_model(folder: Path, out: Path) -> None:
    """As :func:`small_vlm`, of a causal language model. Narrow where its config speaks as Llama's does."""
    config = AutoConfig.from_pretrained(folder).get_text_config()
    fields = config.to_dict()
    small = json.loads((SHAPES / "llama" / "config.json").read_text(encoding="utf-8"))
    small = {key: small[key] for key in SIZES & small.keys()}
    if fields.get("head_dim"):
        small["head_dim"] = small["hidden_size"] // small["num_attention_heads"]
    if fields.get("layer_types"):
        small["layer_types"] = fields["layer_types"][: small["num_hidden_layers"]]
    _copy_small_files(folder, out)
    _write(AutoModelForCausalLM, _config(with_sizes(fields, small), config), out)


def small_encoder(encoder: VisionEncoder, folder: Path | None, out: Path) -> None:
    """A vision encoder in ``out`` like the one in ``folder``; of the smallest shape without one."""
    shapes = json.loads((SHAPES / "encoders.json").read_text(encoding="utf-8"))
    kind = encoder.config_class.model_type
    if folder is None:
        if kind not in shapes:
            raise ConfigError(f"no config.json of {encoder.weights} is on this machine; fetch it, and rehearse again")
        config = encoder.config_class(**shapes[kind])
    else:
        fields = type(encoder)(str(folder)).config.to_dict()
        small = {key: value for key, value in shapes.get(kind, {}).items() if key in SIZES}
        config = encoder.config_class(**(with_sizes(fields, small) if small else _fewer_layers(fields)))
        _copy_small_files(folder, out)
    torch.manual_seed(0)
    encoder.model_class(config).save_pretrained(out, max_shard_size=_SHARD)


def with_sizes(real: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """``real`` with the sizes of ``small``, in both at the same place."""
    result = {}
    for key, value in real.items():
        if key in _OF_EVERY_LAYER:
            continue
        if isinstance(value, dict) and isinstance(small.get(key), dict):
            result[key] = with_sizes(value, small[key])
        else:
            result[key] = small[key] if key in SIZES and small.get(key) is not None and value is not None else value
    return result


def _fewer_layers(fields: dict[str, Any]) -> dict[str, Any]:
    """Of a family whose widths depend on each other in a way that is not known here, only the layers are fewer."""
    result = {}
    for key, value in fields.items():
        if key in ("num_hidden_layers", "depth") and isinstance(value, int):
            value = min(value, 3)
        elif key == "layer_types" and isinstance(value, list):
            value = value[:3]
        result[key] = _fewer_layers(value) if isinstance(value, dict) else value
    return result


def _config(fields: dict[str, Any], like: PretrainedConfig) -> PretrainedConfig:
    fields = {key: value for key, value in fields.items() if key not in ("transformers_version", "_name_or_path")}
    made: PretrainedConfig = type(like).from_dict(fields)
    return made


def _copy_small_files(folder: Path, out: Path) -> None:
    """Tokenizer, processor, template: everything beside the weights."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.iterdir()):
        index = file.name.endswith(".index.json")
        if file.is_file() and file.name != "config.json" and not index and not file.name.endswith(_WEIGHTS):
            shutil.copyfile(file, out / file.name)


def _write(kind: Any, config: PretrainedConfig, out: Path) -> None:
    torch.manual_seed(0)
    model = kind.from_config(config, dtype=torch.float32)
    model.save_pretrained(out, max_shard_size=_SHARD)
