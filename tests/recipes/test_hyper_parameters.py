"""Every number that a recipe says it has from an original, beside the original's own file."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from original_scripts import (
    FINETUNE,
    FINETUNE_LORA,
    MINIGPT_MODEL,
    PRETRAIN,
    TRAIN_DEFAULTS,
    VLGUARD,
    defaults,
    flags,
    minigpt,
    zero3,
)
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from vlsafe.cli import VlsafeCLI, built

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "llava15_7b_posthoc_lora.yaml": (FINETUNE_LORA, "post-hoc, LoRA"),
    "llava15_7b_posthoc_full.yaml": (FINETUNE, "post-hoc, full"),
    "llava15_7b_mixed_lora.yaml": (FINETUNE_LORA, None),
    "llava15_7b_mixed_full.yaml": (FINETUNE, None),
    "llava15_7b_stage1.yaml": (PRETRAIN, None),
    "paper/llava13b_posthoc_lora.yaml": (FINETUNE_LORA, "post-hoc, LoRA"),
    "paper/llava13b_posthoc_full.yaml": (FINETUNE, "post-hoc, full"),
    "paper/llava13b_mixed_lora.yaml": (FINETUNE_LORA, None),
    "paper/llava13b_mixed_full.yaml": (FINETUNE, None),
    "paper/llava13b_stage1.yaml": (PRETRAIN, None),
}


def recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> VlsafeCLI:
    """The recipe as its header's command builds it."""
    monkeypatch.chdir(ROOT)
    lines = (ROOT / "experiments" / name).read_text().splitlines()
    command = next(line for line in lines if line.startswith("#   python -m vlsafe fit"))
    return built([*shlex.split(command[1:])[4:], "--trainer.accelerator=cpu", "--trainer.precision=32-true"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_llava_s_recipes_are_its_scripts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (script, row) = recipe(name, monkeypatch), SCRIPTS[name]
    told = defaults(TRAIN_DEFAULTS) | flags(script)
    rate, epochs = VLGUARD[row] if row else (told["learning_rate"], told["num_train_epochs"])
    assert (run.model.schedule, run.model.warmup_ratio) == (told["lr_scheduler_type"], told["warmup_ratio"])
    assert (run.model.warmup_steps, run.model.warmup_start, run.model.min_learning_rate) == (None, None, 0.0)
    assert run.model.weight_decay == told["weight_decay"]
    assert run.model.activation_checkpointing is (told["gradient_checkpointing"] == "True")
    assert run.trainer.max_epochs == epochs
    assert run.datamodule._encoding_options["max_length"] == told["model_max_length"]
    assert (run.datamodule.group_by_modality_length is not None) == (told.get("group_by_modality_length") == "True")
    assert run.model.backbone.image_fit == {"pad": "pad", "square": "crop"}[told["image_aspect_ratio"]]
    if script != PRETRAIN:
        assert run.datamodule.batch_size * run.trainer.accumulate_grad_batches == VLGUARD["batch"]
    else:
        eight_gpus = 8 * told["per_device_train_batch_size"] * told["gradient_accumulation_steps"]
        assert run.datamodule.batch_size * run.trainer.accumulate_grad_batches == eight_gpus
    language, projector = run.model.components.language, run.model.components.projector
    assert run.model.components.vision.train == "frozen" and projector.train == "full"
    assert projector.learning_rate == told.get("mm_projector_lr", rate)
    assert run.model.backbone.template == told.get("version", "vicuna_v1")  # --version v1 of the scripts
    if script == PRETRAIN:
        assert language.train == "frozen"
        return
    assert language.learning_rate == rate
    if "lora_r" not in told:
        assert language.train == "full"
        return
    assert language.train == "lora" and language.targets is None  # find_all_linear_names
    assert (language.rank, language.alpha) == (told["lora_r"], told["lora_alpha"])
    assert language.dropout == told["lora_dropout"] == 0.05


@pytest.mark.parametrize("name", [*SCRIPTS, "paper/minigpt_v2_mixed.yaml"])
def test_nothing_is_clipped_where_the_original_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``transformers`` writes its max_grad_norm over "auto" alone, and DeepSpeed clips only where the key is there."""
    assert "gradient_clipping" not in zero3()
    assert recipe(name, monkeypatch).trainer.gradient_clip_val is None


@pytest.mark.parametrize(("config", "clipping"), [(zero3(), None), (zero3() | {"gradient_clipping": "auto"}, 1.0)])
def test_transformers_fills_in_its_clipping_over_auto_alone(config: dict[str, Any], clipping: float | None) -> None:
    """By the Trainer's own code, as it stands in ``trainer_config_process``."""
    theirs = HfDeepSpeedConfig(config)
    theirs.mismatches = []
    HfTrainerDeepSpeedConfig.fill_match(theirs, "gradient_clipping", TrainingArguments().max_grad_norm, "max_grad_norm")
    assert theirs.get_value("gradient_clipping") == clipping and theirs.mismatches == []


@pytest.mark.parametrize("name", ["minigpt_v2_mixed", "minigpt_v2_posthoc"])
def test_minigpt_s_recipes_are_its_yaml(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (model, told) = recipe(f"paper/{name}.yaml", monkeypatch), minigpt()
    language = run.model.components.language
    assert (language.rank, language.alpha) == (model["lora_r"], model["lora_alpha"])
    assert language.dropout == defaults(MINIGPT_MODEL)["lora_dropout"] == 0.05
    assert language.targets == ["q_proj", "v_proj"]
    assert run.model.adapter == f"{run.model.backbone.checkpoint}/adapter"  # `ckpt` is loaded with its LoRA weights
    assert language.learning_rate == run.model.components.projector.learning_rate == told["init_lr"]
    assert VLGUARD["post-hoc, MiniGPT-v2"] == (language.learning_rate, run.trainer.max_epochs)
    assert run.model.weight_decay == told["weight_decay"] == 0.05
    steps = round(told["max_epoch"] * told["iters_per_epoch"])
    ours = run.model.rates(steps)
    assert ours.warmup == told["warmup_steps"] == 1000  # post-hoc by its share of MiniGPT-v2's own run
    for step in (0, 1, 500, 999, 1000, 1001, 25_000, steps - 1):
        assert ours.rate(1e-5, step, steps) == pytest.approx(lavis(step, told), rel=1e-12)


def lavis(step: int, told: dict[str, float]) -> float:
    """The rate that MiniGPT-v2's ``linear_warmup_cosine_lr`` sets (minigpt4/common/optims.py), by hand."""
    peak, end, start, warmup = (told[name] for name in ("init_lr", "min_lr", "warmup_lr", "warmup_steps"))
    if step < warmup:
        return start + step * (peak - start) / warmup
    half_wave = math.cos(step * math.pi / (told["max_epoch"] * told["iters_per_epoch"]))
    return end + (peak - end) * (1 + half_wave) / 2
