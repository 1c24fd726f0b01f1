"""Every family in bfloat16 with what trains in float32, as ``bf16-mixed`` trains, answers and exports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from making import Family
from test_families import FROZEN, FULL, LORA, TABLES, mixed, opened
from tiny import ask
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlsafe import SafetyFineTuning
from vlsafe.answering import Decoding
from vlsafe.conversation import ImageRef
from vlsafe.models.adaptation import Components
from vlsafe.models.backbones.features import summed
from vlsafe.models.export import export_model
from vlsafe.models.responder import ModelResponder
from vlsafe.objectives.sft import SFT

VISION_ALONE = {"vision alone": Components(FULL, FROZEN, FROZEN), "vision lora": Components(LORA, FROZEN, FROZEN)}
NEAR = 0.03
"""Of losses and logits in bfloat16, which keeps 8 bits, relatively to those in float32."""


def autocast() -> torch.autocast:
    """As Lightning's ``bf16-mixed`` computes."""
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


def halved(checkpoint: Path, family: Family, table: Components, dtype: Any = "bfloat16") -> SafetyFineTuning:
    backbone = opened(checkpoint, family)
    backbone.dtype = dtype
    module = SafetyFineTuning(backbone, table)
    torch.manual_seed(0)
    module.configure_model()
    return module


@pytest.mark.parametrize("table", [*TABLES, *VISION_ALONE])
def test_a_step_has_float32_gradients_and_the_loss_of_float32(
    table: str, family: Family, checkpoint: Path, pictures: dict[str, ImageRef]
) -> None:
    losses = {}
    for dtype in ("bfloat16", "float32"):
        module = halved(checkpoint, family, (TABLES | VISION_ALONE)[table], dtype)
        module.train()
        batch = mixed(module.backbone, pictures)
        with autocast() if dtype == "bfloat16" else torch.enable_grad():
            sums = SFT()(module.model, batch)
            (sums.loss + 0 * summed(module.backbone.blank_features(module._plain()))).backward()
        losses[dtype] = float(sums.loss.detach() / sums.sample_tokens.sum())
        for name, parameter in module.named_parameters():
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else getattr(torch, dtype)), name
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
                assert parameter.grad.isfinite().all(), name
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=NEAR)


@torch.inference_mode()
def logits(model: Any, batch: Any) -> Tensor:
    return model.eval()(**batch.inputs).logits.float()


@pytest.mark.parametrize("table", ["full", "posthoc"])
def test_an_export_answers_in_plain_transformers_as_in_training(
    table: str, family: Family, checkpoint: Path, pictures: dict[str, ImageRef], tmp_path: Path
) -> None:
    module = halved(checkpoint, family, TABLES[table])
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:  # tuned by a few percent, so that nothing stays as it was
                parameter.add_(0.02 * parameter.std().nan_to_num(0.02).clamp(min=0.02) * torch.randn_like(parameter))
    batch = mixed(module.backbone, pictures)
    with autocast():
        tuned = logits(module.model, batch)
        responder = ModelResponder(module.model, module.backbone)
        ((_, answer),) = responder.respond([ask("c?", "", pictures["red"])], Decoding(3))
    assert not answer.error
    export_model(module, tmp_path, "# model")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto", attn_implementation="sdpa")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    shown = batch.inputs["attention_mask"].bool()
    far = (logits(again, batch) - tuned)[shown].norm() / tuned[shown].norm()
    assert far < NEAR
