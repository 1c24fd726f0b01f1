"""MiniGPT-v2's LoRA weights kept as an adapter, and its training gone on with."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from originals import EVA, inputs_for, logits, lora_of, minigpt_files
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, Blip2VisionConfig

from tests.models.fitting import data, files, trainer
from vlsafe import MiniGPTv2, SafetyFineTuning
from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components, Tuning
from vlsafe.models.conversion.minigpt import convert_minigpt
from vlsafe.models.export import export_adapter, export_model
from vlsafe.models.minigpt import MiniGPTv2ForConditionalGeneration
from vlsafe.models.strength import with_adapter

LORA = Tuning("lora", 1e-3, rank=4, alpha=2, targets=["q_proj", "v_proj"])
TABLE = Components(Tuning(), Tuning("full", 1e-3), LORA)


@pytest.fixture
def converted(minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path) -> Path:
    """``merged`` and ``kept``, of the same checkpoint; alpha 2 over rank 4."""
    checkpoint, llama, eva, language = minigpt_files(minigpt, tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    content["model"] |= lora_of(language)[0]
    content["config"] = {"model": {"lora_alpha": 2}}
    torch.save(content, checkpoint)
    for name, keep in (("merged", False), ("kept", True)):
        convert_minigpt(checkpoint, tmp_path / name, llama, eva, vision=Blip2VisionConfig(**EVA), keep_lora=keep)
    return tmp_path


def tuned(folder: Path, table: Components = TABLE, **options: Any) -> SafetyFineTuning:
    backbone = MiniGPTv2(str(folder / "kept"), attention="sdpa", dtype="float32")
    options = {"adapter": str(folder / "kept" / "adapter"), "warmup_ratio": 0.0} | options
    return SafetyFineTuning(backbone, table, **options)


def loaded(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder)


def test_the_kept_adapter_on_its_base_is_the_merged_model(converted: Path, picture: ImageRef) -> None:
    inputs = inputs_for(converted / "merged", picture)
    wanted = logits(loaded(converted / "merged"), inputs)
    base = loaded(converted / "kept")
    assert not torch.allclose(logits(base, inputs), wanted, atol=1e-2), "the base is without the LoRA weights"
    both = PeftModel.from_pretrained(base, converted / "kept" / "adapter")
    assert torch.allclose(logits(both, inputs), wanted, atol=1e-4)


def test_training_goes_on_with_the_checkpoint_s_own_lora(
    converted: Path, picture: ImageRef, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = inputs_for(converted / "merged", picture)
    wanted = logits(loaded(converted / "merged"), inputs)
    module = tuned(converted)
    with caplog.at_level(logging.INFO):
        module.configure_model()
    assert "as the checkpoint has them: model.multi_modal_projector.bias" in caplog.text
    assert torch.allclose(logits(module.model, inputs), wanted, atol=1e-4)
    with module.before_tuning():
        assert torch.allclose(logits(module.model, inputs), wanted, atol=1e-4), "its LoRA is part of what is tuned"
    adapter = load_file(converted / "kept" / "adapter" / "adapter_model.safetensors")
    trainer(converted, max_steps=1).fit(module, datamodule=data(files(converted)))
    for key, tensor in weights(module).items():
        moved = (tensor - adapter[key]).abs()
        assert moved.max() > 0 and moved.max() < 0.01, "one step from the checkpoint's weights, not from new ones"
    assert export_adapter(module, converted / "out", "card") is not None
    again = with_adapter(loaded(converted / "kept"), converted / "out")
    assert torch.allclose(logits(again, inputs), logits(module.model.eval(), inputs), atol=1e-4)


def weights(module: SafetyFineTuning) -> dict[str, Tensor]:
    assert module.model is not None
    return {name.replace(".default", ""): p.detach() for name, p in module.model.named_parameters() if "lora_" in name}


def test_a_strength_that_would_undo_the_checkpoint_s_lora_is_refused(converted: Path) -> None:
    module = tuned(converted)
    module.configure_model()
    export_adapter(module, converted / "out", "card")
    with pytest.raises(ConfigError, match=r"LoRA strength 0.5: this adapter went on from .*kept/adapter"):
        with_adapter(loaded(converted / "kept"), converted / "out", 0.5)
    with pytest.raises(ConfigError, match=r"LoRA strength 0: this adapter went on from"):
        export_model(module, converted / "model", "card", strength=0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (dict(rank=2), r"lora_A.weight is \[4, 16\] in .*adapter, \[2, 16\] by model.components"),
        (dict(alpha=4), "lora_alpha is 2 in .*adapter, 4 by model.components"),
        (dict(rslora=True), "use_rslora is False in .*adapter, True by model.components"),
        (dict(targets=["q_proj"]), r"adapter has .*v_proj.lora_A.weight, which does not train by model.components"),
        (dict(targets=None), r"has no .*k_proj.lora_A.weight, which model.components adapts"),
    ],
)
def test_an_adapter_that_is_not_the_table_s_is_refused(converted: Path, changed: dict[str, Any], words: str) -> None:
    module = tuned(converted, Components(Tuning(), Tuning("full", 1e-3), replace(LORA, **changed)))
    with pytest.raises(ConfigError, match=words):
        module.configure_model()


def test_what_is_wrong_is_told_before_weights_load(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tuned(converted, adapter=str(converted / "nowhere"))
    monkeypatch.setattr(MiniGPTv2, "load_model", lambda self: pytest.fail("weights were loaded"))
    with pytest.raises(ConfigError, match=r"nowhere has no adapter_config.json and no adapter_model.safetensors"):
        trainer(converted, max_steps=1).fit(module, datamodule=data(files(converted)))
    with pytest.raises(ConfigError, match=r"model\.adapter is to go on training, but model\.components trains none"):
        tuned(converted, Components(Tuning(), Tuning("full", 1e-3)))


def test_without_lora_weights_there_is_nothing_to_keep(
    minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path
) -> None:
    checkpoint, llama, eva, _ = minigpt_files(minigpt, tmp_path)
    with pytest.raises(ConfigError, match=r"--keep-lora: .*checkpoint.pth holds no LoRA weights"):
        convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA), keep_lora=True)
