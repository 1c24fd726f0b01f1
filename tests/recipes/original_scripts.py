"""What the originals' own files say, in the lines that matter, so that each number of a recipe has a source.

LLaVA: github.com/haotian-liu/LLaVA. MiniGPT-v2: github.com/Vision-CAIR/MiniGPT-4. VLGuard: arXiv 2402.02207, app. A.1.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

FINETUNE_LORA = """
    --lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5
    --image_aspect_ratio pad
    --group_by_modality_length True
    --num_train_epochs 1
    --per_device_train_batch_size 16
    --gradient_accumulation_steps 1
    --learning_rate 2e-4
    --weight_decay 0.
    --warmup_ratio 0.03
    --lr_scheduler_type "cosine"
    --model_max_length 2048
    --gradient_checkpointing True
"""
"""LLaVA, scripts/v1_5/finetune_lora.sh; made for 8 GPUs."""

FINETUNE = """
    --image_aspect_ratio pad
    --group_by_modality_length True
    --num_train_epochs 1
    --per_device_train_batch_size 16
    --gradient_accumulation_steps 1
    --learning_rate 2e-5
    --weight_decay 0.
    --warmup_ratio 0.03
    --lr_scheduler_type "cosine"
    --model_max_length 2048
    --gradient_checkpointing True
"""
"""LLaVA, scripts/v1_5/finetune.sh."""

PRETRAIN = """
    --version plain
    --tune_mm_mlp_adapter True
    --num_train_epochs 1
    --per_device_train_batch_size 32
    --gradient_accumulation_steps 1
    --learning_rate 1e-3
    --weight_decay 0.
    --warmup_ratio 0.03
    --lr_scheduler_type "cosine"
    --model_max_length 2048
    --gradient_checkpointing True
"""
"""LLaVA, scripts/v1_5/pretrain.sh. It gives no --image_aspect_ratio, and so takes train.py's ``square``."""

TRAIN_DEFAULTS = "lora_dropout: float = 0.05\nimage_aspect_ratio: str = 'square'\n"
"""LLaVA, llava/train/train.py: of the arguments that the scripts leave alone."""

ZERO3 = """{
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_optimization": {"stage": 3, "overlap_comm": true, "stage3_gather_16bit_weights_on_model_save": true}
}"""
"""LLaVA, scripts/zero3.json, its keys but for bucket sizes; scripts/zero2.json has the same outer ones."""

MINIGPT_FINETUNE = """
model:
  max_txt_len: 1024
  lora_r: 64
  lora_alpha: 16
run:
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 1e-5
  min_lr: 1e-6
  warmup_lr: 1e-6
  weight_decay: 0.05
  max_epoch: 50
  warmup_steps: 1000
  iters_per_epoch: 1000
"""
"""MiniGPT-v2, train_configs/minigptv2_finetune.yaml."""

MINIGPT_MODEL = 'lora_target_modules=["q_proj", "v_proj"], lora_dropout=0.05,'
"""MiniGPT-v2, minigpt4/models/minigpt_v2.py: arguments that its YAML leaves alone."""

VLGUARD = {"post-hoc, full": (1e-5, 3), "post-hoc, LoRA": (2e-4, 3), "post-hoc, MiniGPT-v2": (1e-5, 1), "batch": 128}
"""The paper's learning rates and epochs, and its global batch."""


def flags(script: str) -> dict[str, Any]:
    """``--name value`` as name -> value, numbers as numbers."""
    return {name: _value(text.strip('"')) for name, text in re.findall(r"--(\w+) (\S+)", script)}


def defaults(text: str) -> dict[str, Any]:
    """``name = value`` and ``name: type = value`` of Python as name -> value."""
    return {name: _value(value.strip("'")) for name, value in re.findall(r"(\w+)(?:: \w+ = |=)([\w.']+)", text)}


def zero3() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(ZERO3)
    return content


def minigpt() -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``model`` and ``run`` sections."""
    content = yaml.safe_load(MINIGPT_FINETUNE)
    return content["model"], {name: _value(value) for name, value in content["run"].items()}


def _value(text: Any) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
