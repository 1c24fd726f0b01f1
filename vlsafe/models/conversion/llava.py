"""LLaVA-1.5 checkpoints of the original code base (``liuhaotian/llava-*``, ``ys-zong/llava-*``) as Hugging Face LLaVA.

Key names are those that the LLaVA repository saves (llava/model/llava_arch.py, multimodal_projector/builder.py and
multimodal_encoder/clip_encoder.py beside it); how its LoRA checkpoints are laid out is in llava/model/builder.py. What
is written has the names of ``llava-hf/llava-1.5-7b-hf``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from vlsafe.data.chat import chat_template, fitted_template
from vlsafe.errors import ConfigError, DataError
from vlsafe.models.conversion import lora, shards
from vlsafe.models.conversion.llava_config import Original, read_original
from vlsafe.models.conversion.plan import Plan, Source, Step, carried_out, grown, planned
from vlsafe.models.conversion.result import Converted, counted
from vlsafe.models.conversion.tokenizers import add_special, tokenizer_of
from vlsafe.models.encoders.clip import CLIP

TEMPLATE = "vicuna_v1"
"""LLaVA-1.5 was tuned with ``--version v1``, which is this prompt."""

_ADAPTER = "adapter_config.json"
_WRAPPED = "base_model.model."  # what PEFT puts before the keys of a LoRA checkpoint
_PROJECTOR = {
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.mm_projector.": "multi_modal_projector.linear_1.",  # the linear kind, one layer without a number
}
_TOWER = "model.vision_tower.vision_tower.vision_model."
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")
_EMBEDDINGS, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
_REST_OF_CLIP = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


def convert_llava(source: Path, out: Path, base: Path | None = None, vision_tower: Path | None = None) -> Converted:
    """Write ``out`` from an original LLaVA folder, whole or LoRA.

    Args:
        source: folder with ``config.json`` and the weights; with ``adapter_config.json`` it is a LoRA checkpoint.
        base: what the LoRA weights adapt: a Llama (Vicuna) folder, or an original LLaVA folder.
        vision_tower: CLIP folder, for checkpoints that do not hold the encoder's weights.

    Raises:
        DataError: keys missing, unexpected or of another shape (all listed), files damaged or of another layout.
        ConfigError: a part that must be named is not, or ``out`` exists.
    """
    with shards.whole_folder(out) as folder:
        original = read_original(source, vision_tower)
        parts, deltas = _parts(source, base)
        tokenizer = tokenizer_of(source, base)
        add_special(tokenizer, "<image>", pad="<pad>")
        config = original.llava_config(tokenizer)
        plan = _planned(parts, deltas, vision_tower, original, config)
        embeddings = plan.steps[_EMBEDDINGS]
        config.dtype = shards.header(embeddings.file)[embeddings.keys[0]].dtype if embeddings.file else torch.float16
        writer = carried_out(plan, folder, config.dtype)
        _save_beside(folder, config, tokenizer, original)
    facts = {
        "from": f"LLaVA, {source}" + (f" on {base}" if base else ""),
        "encoder": original.tower + (f", weights of {vision_tower}" if vision_tower else ""),
        "vocabulary": f"{original.text.vocab_size} -> {config.text_config.vocab_size} rows for <image> and <pad>",
        "pictures": f"{config.image_seq_length} tokens, fitted by {original.fit}",
        "template": TEMPLATE,
    }
    return Converted(out, facts | counted(plan, writer, config.dtype))


def _planned(
    parts: list[list[Path]],
    deltas: dict[str, lora.Delta],
    vision_tower: Path | None,
    original: Original,
    config: LlavaConfig,
) -> Plan:
    step = partial(_step, rows=config.text_config.vocab_size - original.text.vocab_size)
    sources = [Source(files, step) for files in parts]
    if vision_tower is not None:
        sources.append(Source(shards.weight_files(vision_tower), _tower_step))
    width = config.text_config.hidden_size
    identity: dict[str, Callable[[], Tensor]] = {  # the second layer of LLaVA's shape, which the linear kind lacks
        "multi_modal_projector.linear_2.weight": lambda: torch.eye(width),
        "multi_modal_projector.linear_2.bias": lambda: torch.zeros(width),
    }
    targets = {_name(f"{module}.weight"): delta for module, delta in deltas.items()}
    try:
        return planned(_expected(config), sources, identity if original.projector == "linear" else {}, targets)
    except DataError as error:
        lacking = vision_tower is None and "nothing gives vision_tower" in str(error)
        hint = f"\nThe encoder is not in these files: get {original.tower} and name its folder with --vision-tower"
        raise DataError(
            f"{parts[0][0].parent} is no complete LLaVA checkpoint: {error}{hint if lacking else ''}"
        ) from error


def _parts(source: Path, base: Path | None) -> tuple[list[list[Path]], dict[str, lora.Delta]]:
    """Weight files, those that win first, and LoRA deltas by original module path."""
    adapter = source / _ADAPTER
    if not adapter.is_file():
        if base is not None:
            raise ConfigError(f"{source} has no {_ADAPTER}: its weights are whole, leave --base out")
        return [shards.weight_files(source)], {}
    if base is None:
        raise ConfigError(f"{source} is a LoRA checkpoint: name the folder of the model that it adapts with --base")
    config = shards.read_json(adapter)
    weights = next(
        (source / n for n in ("adapter_model.safetensors", "adapter_model.bin") if (source / n).is_file()), None
    )
    beside = source / "non_lora_trainables.bin"
    if weights is None or not beside.is_file():
        absent = "adapter_model.bin" if weights is None else "non_lora_trainables.bin, which holds the projector,"
        raise DataError(f"{source}: {absent} is missing; is the download whole?")
    with shards.opened(weights) as tensors:
        found = {key: tensors[key] for key in shards.header(weights)}
    deltas = lora.deltas(found, lora.alpha_of(config, adapter), config["r"], weights)
    return [[beside], shards.weight_files(base)], deltas


def _step(key: str, rows: int) -> Step | None:
    """``rows``: by how many the vocabulary grows."""
    key = key.removeprefix(_WRAPPED)
    if key.endswith(_BUFFERS):
        return None
    name = _name(key)
    return Step(name, make=partial(grown, rows=rows)) if name in (_EMBEDDINGS, _HEAD) and rows else Step(name)


def _name(key: str) -> str:
    for old, new in _PROJECTOR.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    if key.startswith(_TOWER):
        return f"vision_tower.vision_model.{key.removeprefix(_TOWER)}"
    return f"language_model.{key}"


def _tower_step(key: str) -> Step | None:
    """``key`` of a CLIP folder: a whole CLIP, or its vision half as older or newer transformers save it."""
    if key.startswith(_REST_OF_CLIP) or key.endswith(_BUFFERS):
        return None
    return Step(f"vision_tower.vision_model.{key.removeprefix('vision_model.')}")


def _expected(config: LlavaConfig) -> dict[str, Tensor]:
    """Name on disk -> shape, of every tensor of the new model."""
    with torch.device("meta"):
        tensors = LlavaForConditionalGeneration(config).state_dict()
    moved = {
        "lm_head.": "language_model.lm_head.",
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }
    names = {
        key: next(new + key.removeprefix(old) for old, new in moved.items() if key.startswith(old)) for key in tensors
    }
    tied = {_HEAD} if config.text_config.tie_word_embeddings else set()
    return {names[key]: tensor for key, tensor in tensors.items() if names[key] not in tied}


def _save_beside(folder: Path, config: LlavaConfig, tokenizer: PreTrainedTokenizerBase, original: Original) -> None:
    config.save_pretrained(folder)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    GenerationConfig(**ends, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
    LlavaProcessor(
        CLIP(original.vision.to_dict()).image_processor(original.fit),
        tokenizer,
        patch_size=original.vision.patch_size,
        vision_feature_select_strategy=original.features,
        num_additional_image_tokens=CLIP.class_tokens,
        chat_template=fitted_template(chat_template(TEMPLATE), tokenizer),
    ).save_pretrained(folder)
