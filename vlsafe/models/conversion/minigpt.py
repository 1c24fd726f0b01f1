"""MiniGPT-v2's published weights as a Hugging Face folder of :class:`vlsafe.models.minigpt.MiniGPTv2Config`.

They come in three parts: the checkpoint (``minigptv2_checkpoint.pth``: projector and LoRA weights under ``model``, the
training config under ``config``), EVA ViT-g (``eva_vit_g.pth``) and Llama-2-chat's own folder. Key names are those of
the MiniGPT-4 repository: minigpt4/models/minigpt_v2.py and base_model.py (``llama_proj``, ``llama_model``,
``ln_vision``, ``visual_encoder``), minigpt4/models/eva_vit.py (the encoder, and how its positions are stretched to 448
pixels).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import Blip2VisionConfig, GenerationConfig, LlamaConfig

from vlsafe.errors import ConfigError, DataError
from vlsafe.models.conversion import lora, shards
from vlsafe.models.conversion.plan import Plan, Source, Step, carried_out, grown, planned, vocabulary
from vlsafe.models.conversion.result import Converted, counted
from vlsafe.models.conversion.tokenizers import add_special, tokenizer_of
from vlsafe.models.minigpt import MiniGPTv2Config, MiniGPTv2ForConditionalGeneration
from vlsafe.models.minigpt.processing import IMAGE_TOKEN, processor_of

ADAPTER = "adapter"
_LANGUAGE = "llama_model."
_EMBEDDINGS, _HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
_NORM = "model.vision_tower.post_layernorm."
_TOWER = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.": "embeddings.patch_embedding.",
}
_BLOCK = {
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "attn.qkv.": "self_attn.qkv.",
    "attn.proj.": "self_attn.projection.",
    "mlp.": "mlp.",
}
_REST_OF_EVA = ("norm.", "fc_norm.", "head.", "lm_head.", "mask_token")  # after the last block, or of its pretraining


def convert_minigpt(
    checkpoint: Path,
    out: Path,
    llama: Path,
    eva: Path,
    lora_alpha: float | None = None,
    vision: Blip2VisionConfig | None = None,
    keep_lora: bool = False,
) -> Converted:
    """Write ``out`` from MiniGPT-v2's parts, its LoRA weights merged, or as a PEFT adapter in ``out/adapter``.

    Args:
        checkpoint: the ``.pth`` file.
        llama: folder of the Llama-2-chat that it was trained on.
        eva: EVA ViT-g, ``eva_vit_g.pth``.
        lora_alpha: of the LoRA weights (scale ``alpha / rank``); needed where the checkpoint does not say it.
        vision: sizes of the encoder; None for EVA ViT-g at 448 pixels.
        keep_lora: leave the language model as it was before MiniGPT-v2's LoRA, which stays an adapter; its training can
            go on (``model.adapter``), as in MiniGPT-v2's own stages.

    Raises:
        DataError: keys missing, unexpected or of another shape (all listed), files damaged or of another layout.
        ConfigError: a part that must be named is not, names contradict, or ``out`` exists.
    """
    with shards.whole_folder(out) as folder:
        tokenizer = tokenizer_of(llama)
        config = _config(llama, vision)
        rows = config.text_config.vocab_size
        add_special(tokenizer, IMAGE_TOKEN)
        config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        config.text_config.vocab_size = vocabulary(len(tokenizer), rows)
        deltas = _deltas(checkpoint, lora_alpha)
        if keep_lora and not deltas:
            raise ConfigError(f"--keep-lora: {checkpoint} holds no LoRA weights")
        plan = _planned(config, rows, [[checkpoint], [eva], shards.weight_files(llama)], deltas, not keep_lora)
        embeddings = plan.steps[_EMBEDDINGS]
        config.dtype = shards.header(embeddings.file)[embeddings.keys[0]].dtype if embeddings.file else torch.float16
        writer = carried_out(plan, folder, config.dtype)
        config.save_pretrained(folder)
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        GenerationConfig(**ends).save_pretrained(folder)
        processor_of(tokenizer, config).save_pretrained(folder)
        if keep_lora:
            paths = {_language_name(f"{path}.weight").removesuffix(".weight"): d for path, d in deltas.items()}
            lora.save_adapter(paths, folder / ADAPTER)
    facts = {
        "from": f"MiniGPT-v2, {checkpoint}, on {llama} with {eva}",
        "vocabulary": f"{rows} -> {config.text_config.vocab_size} rows, {IMAGE_TOKEN} among them",
        "pictures": f"{config.image_seq_length} tokens, squeezed to {config.vision_config.image_size} pixels a side",
        "layer norm": "as it starts: the checkpoint holds none"
        if plan.steps[f"{_NORM}weight"].file is None
        else "of the checkpoint",
        "scale of LoRA": ", ".join(sorted({f"{delta.scale:g}" for delta in deltas.values()}))
        or "no LoRA weights there",
    }
    if keep_lora:
        facts["LoRA"] = f"kept, {len(deltas)} layers: {out / ADAPTER}"
    return Converted(out, facts | counted(plan, writer, config.dtype))


def _config(llama: Path, vision: Blip2VisionConfig | None) -> MiniGPTv2Config:
    file = llama / "config.json"
    found = shards.read_json(file)
    if found.get("model_type") != "llama":
        raise DataError(f"{file}: model_type is {found.get('model_type')!r}; MiniGPT-v2 was trained on Llama-2-chat")
    return MiniGPTv2Config(
        vision_config=vision,
        text_config=LlamaConfig.from_pretrained(llama),
        architectures=["MiniGPTv2ForConditionalGeneration"],
    )


def _deltas(checkpoint: Path, alpha: float | None) -> dict[str, lora.Delta]:
    """LoRA deltas by the Llama module they adapt. The published file was trained with rank 64 and alpha 16."""
    content = shards.unpickled(checkpoint)
    weights = shards.state_dict_of(content, checkpoint)
    if "llama_proj.weight" not in weights:
        raise DataError(f"{checkpoint}: holds no llama_proj.weight, so it is no checkpoint of MiniGPT-v2")
    found = {key.removeprefix(_LANGUAGE): value for key, value in weights.items() if lora.is_lora(key)}
    if not found:
        return {}
    told = _told_alpha(content)
    if alpha is not None and told is not None and alpha != told:
        raise ConfigError(f"--lora-alpha is {alpha:g}, {checkpoint} was trained with {told:g}; leave --lora-alpha out")
    alpha = told if alpha is None else alpha
    if alpha is None:
        raise ConfigError(
            f"{checkpoint} does not say the alpha of its LoRA weights; name it with --lora-alpha (it stands as "
            "model.lora_alpha in the config that it was trained with)"
        )
    return lora.deltas(found, alpha, None, checkpoint)


def _told_alpha(content: dict[str, Any]) -> float | None:
    config = content.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    alpha = model.get("lora_alpha") if isinstance(model, dict) else None
    return None if alpha is None else float(alpha)


def _planned(
    config: MiniGPTv2Config, rows: int, parts: list[list[Path]], deltas: dict[str, lora.Delta], merge: bool
) -> Plan:
    language = partial(_language_step, grows=config.text_config.vocab_size - rows)
    tower = partial(_tower_step, config=config)

    def of_checkpoint(key: str) -> Step | None:
        if lora.is_lora(key):
            return None  # merged or kept, see deltas
        if key.startswith("visual_encoder."):
            return tower(key.removeprefix("visual_encoder."), before="visual_encoder.")
        if key.startswith(_LANGUAGE):
            return language(key.removeprefix(_LANGUAGE))
        return Step(key.replace("llama_proj.", "model.multi_modal_projector.", 1).replace("ln_vision.", _NORM, 1))

    with torch.device("meta"):
        model = MiniGPTv2ForConditionalGeneration(config)
    expected = {k: v for k, v in model.state_dict().items() if k != _HEAD or not config.tie_word_embeddings}
    width = config.vision_config.hidden_size
    norm: dict[str, Callable[[], Tensor]] = {  # frozen as it starts in MiniGPT-v2's training, so not in its checkpoint
        f"{_NORM}weight": lambda: torch.ones(width),
        f"{_NORM}bias": lambda: torch.zeros(width),
    }
    steps: tuple[Callable[[str], Step | None], ...] = (of_checkpoint, tower, language)
    sources = [Source(files, step) for files, step in zip(parts, steps, strict=True)]
    targets = {_language_name(f"{path}.weight"): delta for path, delta in deltas.items()}
    plan = planned(expected, sources, norm, targets, merge)
    plan.left_out = [key for key in plan.left_out if not lora.is_lora(key)]
    return plan


def _language_name(key: str) -> str:
    key = key.removeprefix("base_model.model.").replace(".base_layer.", ".")  # PEFT's, around what it adapts
    return key if key.startswith("lm_head.") else f"model.language_model.{key.removeprefix('model.')}"


def _language_step(key: str, grows: int) -> Step | None:
    if key.endswith("rotary_emb.inv_freq"):
        return None
    name = _language_name(key)
    return Step(name, make=partial(grown, rows=grows)) if name in (_EMBEDDINGS, _HEAD) and grows else Step(name)


def _tower_step(key: str, config: MiniGPTv2Config, before: str = "") -> Step | None:
    """``key`` of EVA ViT-g, in a file where all its keys have ``before`` in front."""
    if key.startswith(_REST_OF_EVA) or key.endswith(".attn.v_bias"):  # v_bias goes with q_bias
        return None
    block = re.match(r"blocks\.(\d+)\.(.+)", key)
    if block is None:
        name = _renamed(key, _TOWER)
        make = partial(stretched, side=int(config.patches**0.5))
        return (
            Step(f"model.vision_tower.{name}", make=make) if key == "pos_embed" else Step(f"model.vision_tower.{name}")
        )
    if int(block[1]) >= config.vision_config.num_hidden_layers:
        return None  # EVA's 40th block: features are read before it
    layer = f"model.vision_tower.encoder.layers.{block[1]}."
    if block[2] == "attn.q_bias":
        return Step(f"{layer}self_attn.qkv.bias", (before + key, before + key.replace("q_bias", "v_bias")), qkv_bias)
    return Step(layer + _renamed(block[2], _BLOCK))


def _renamed(key: str, names: dict[str, str]) -> str:
    return next((new + key.removeprefix(old) for old, new in names.items() if key.startswith(old)), key)


def qkv_bias(query: Tensor, value: Tensor) -> Tensor:
    """EVA's keys have no bias; transformers has one vector [3 * width] for all three."""
    return torch.cat([query, torch.zeros_like(query), value])


def stretched(positions: Tensor, side: int) -> Tensor:
    """Position embeddings [1, 1 + old side ** 2, width] for ``side`` x ``side`` patches; the class token's stays."""
    old = round((positions.shape[1] - 1) ** 0.5)
    if old == side:
        return positions
    grid = positions[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)], dim=1)
