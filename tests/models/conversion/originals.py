"""Published layouts, written by hand and key by key from models whose logits are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import CHARACTERS, SPECIAL, ask, language_model, save_tokenizer
from torch import Tensor
from transformers import AutoProcessor, LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration, PreTrainedModel

from vlsafe.conversation import ImageRef
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.models.minigpt import MiniGPTv2ForConditionalGeneration

ROWS = len(SPECIAL) + len(CHARACTERS)
"""Vocabulary of the original models; with the new tokens it grows to 128 rows."""
GROWN = 128
CLIP_SIZES = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
)
LLAMA = {k: v for k, v in language_model(Path()).items() if k not in ("model_type", "tokenizer", "pad_token_id")}
Weights = dict[str, Tensor]


@torch.inference_mode()
def logits(model: PreTrainedModel, inputs: Weights) -> Tensor:
    """Of the words that the original knows."""
    return model.eval()(**inputs).logits[..., :ROWS]


def inputs_for(folder: Path, picture: ImageRef) -> Weights:
    encoding = Encoding(AutoProcessor.from_pretrained(folder))
    return Collate(0)([encoding.sample(ask("colour?", "red", picture)), encoding.sample(ask("hi", "yes"))]).inputs


def rescaled(model: PreTrainedModel) -> Any:
    """Weights large enough that a swapped or missing one shows in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


def original_llava(model: PreTrainedModel) -> Weights:
    """The state dict as the LLaVA code base would have saved it: no rows for <image>, and its old buffers."""
    renamed = (
        (r"^model\.language_model\.", "model."),
        (r"^model\.vision_tower\.", "model.vision_tower.vision_tower.vision_model."),
        (r"^model\.multi_modal_projector\.linear_1", "model.mm_projector.0"),
        (r"^model\.multi_modal_projector\.linear_2", "model.mm_projector.2"),
    )
    weights = {}
    for key, tensor in model.state_dict().items():
        for pattern, new in renamed:
            if re.match(pattern, key):
                key = re.sub(pattern, new, key)
                break
        weights[key] = tensor[:ROWS].clone() if key in ("model.embed_tokens.weight", "lm_head.weight") else tensor
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    weights["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return weights


def write_llava(folder: Path, weights: Weights, pieces: int = 2, safe: bool = False, **changed: Any) -> Path:
    """config.json, tokenizer and ``pieces`` shards."""
    save_tokenizer(folder)
    text = LLAMA | {"vocab_size": ROWS, "rms_norm_eps": 1e-6, "torch_dtype": "float32", "rope_scaling": None}
    config = text | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": 16,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
    }
    (folder / "config.json").write_text(json.dumps(config | changed))
    write_weights(folder, weights, pieces, safe)
    return folder


def write_weights(folder: Path, weights: Weights, pieces: int = 2, safe: bool = False) -> None:
    stem, suffix = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    names = [f"{stem}-{i + 1:05}-of-{pieces:05}.{suffix}" for i in range(pieces)]
    where = {key: names[i % pieces] for i, key in enumerate(weights)}
    for name in names:
        held = {key: weights[key].contiguous() for key, file in where.items() if file == name}
        save_file(held, folder / name) if safe else torch.save(held, folder / name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": where}))


def peft_adapter(model: PreTrainedModel, folder: Path, **options: Any) -> PreTrainedModel:
    """A random adapter on the language model, saved as LLaVA saves it; the merged model."""
    targets = r"model\.layers\.\d\.(self_attn\.[qv]_proj|mlp\.down_proj)"
    config = LoraConfig(r=2, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM", **options)
    adapted = rescaled_lora(get_peft_model(model, config))
    adapted.save_pretrained(folder, safe_serialization=True)
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")
    return adapted.merge_and_unload()


def rescaled_lora(model: Any) -> Any:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def lora_llava(llava: LlavaForConditionalGeneration, tmp_path: Path, **options: Any) -> tuple[Path, Path, Any]:
    """The LoRA folder, its Vicuna, and Vicuna with the adapter merged by PEFT."""
    original = original_llava(llava)
    vicuna = LlamaForCausalLM(LlamaConfig(**LLAMA | {"vocab_size": ROWS}))
    language = {k: v for k, v in original.items() if "vision_tower" not in k and "mm_projector" not in k}
    vicuna.load_state_dict({k: v for k, v in language.items() if "inv_freq" not in k})
    base = tmp_path / "vicuna"
    vicuna.save_pretrained(base)
    save_tokenizer(base)
    source = write_llava(tmp_path / "lora", {"unused": torch.zeros(1)}, pieces=1)
    for file in [*source.glob("pytorch_model*"), *source.glob("token*")]:
        file.unlink()
    merged = peft_adapter(vicuna, source, **options)
    beside = {f"base_model.model.{k}": v for k, v in original.items() if "mm_projector" in k}
    torch.save(beside, source / "non_lora_trainables.bin")
    return source, base, merged


EVA = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
)


def eva_weights(model: MiniGPTv2ForConditionalGeneration) -> Weights:
    """EVA ViT-g's file: one block more than is read, and what its pretraining needed."""
    weights = {}
    for key, tensor in model.model.vision_tower.state_dict().items():
        if key.startswith("post_layernorm"):
            continue
        key = key.replace("embeddings.class_embedding", "cls_token").replace(
            "embeddings.position_embedding", "pos_embed"
        )
        key = key.replace("embeddings.patch_embedding", "patch_embed.proj").replace("encoder.layers", "blocks")
        key = (
            key.replace("layer_norm", "norm").replace("self_attn.projection", "attn.proj").replace("self_attn", "attn")
        )
        if key.endswith("qkv.bias"):
            weights[key.replace("qkv.bias", "q_bias")] = tensor[:16].clone()
            weights[key.replace("qkv.bias", "v_bias")] = tensor[32:].clone()
        else:
            weights[key] = tensor
    extra = {key.replace("blocks.1.", "blocks.2."): torch.zeros_like(t) for key, t in weights.items() if ".1." in key}
    return weights | extra | {"norm.weight": torch.ones(16), "head.weight": torch.ones(2, 16)}


def minigpt_files(model: MiniGPTv2ForConditionalGeneration, folder: Path) -> tuple[Path, Path, Path, Weights]:
    """Checkpoint without LoRA weights, Llama folder, EVA file; and the Llama's weights."""
    llama = LlamaForCausalLM(LlamaConfig(**LLAMA | {"vocab_size": ROWS}))
    language = {
        key.replace("model.language_model", "model"): tensor[:ROWS] if tensor.shape[0] == GROWN else tensor
        for key, tensor in model.state_dict().items()
        if key.startswith(("model.language_model", "lm_head"))
    }
    llama.load_state_dict(language)
    llama.save_pretrained(folder / "llama")
    save_tokenizer(folder / "llama")
    torch.save(eva_weights(model), folder / "eva_vit_g.pth")
    projector = {f"llama_proj.{k}": v for k, v in model.model.multi_modal_projector.state_dict().items()}
    torch.save({"model": projector, "epoch": 3}, folder / "checkpoint.pth")
    return folder / "checkpoint.pth", folder / "llama", folder / "eva_vit_g.pth", language


def lora_of(language: Weights, default: str = "") -> tuple[Weights, Weights]:
    """LoRA weights on q and v of rank 4 as MiniGPT-v2's checkpoint has them, and their products B @ A by key."""
    pieces, products = {}, {}
    for key in language:
        if key.endswith(("q_proj.weight", "v_proj.weight")):
            module = "llama_model.base_model.model." + key.removesuffix(".weight")
            a, b = torch.randn(4, 16), torch.randn(16, 4)
            pieces |= {f"{module}.lora_A{default}.weight": a, f"{module}.lora_B{default}.weight": b}
            products[key] = b @ a
    return pieces, products
