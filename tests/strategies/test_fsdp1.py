"""What FSDP1 cuts on its own, and what it refuses. That its runs are those of one process is in test_equality.py."""

from __future__ import annotations

import pytest
import torch
from fitting import POSTHOC, Seeded
from tiny import VISION, language_model, save_tokenizer

from vlsafe import SafetyFineTuning
from vlsafe.errors import ConfigError
from vlsafe.strategies.fsdp1 import FSDP1


@pytest.fixture
def tuned(tmp_path) -> SafetyFineTuning:
    language = language_model(save_tokenizer(tmp_path))
    backbone = Seeded("clip", language, vision_weights=VISION["clip"], attention="sdpa", dtype="bfloat16")
    module = SafetyFineTuning(backbone, POSTHOC)
    module.configure_model()
    return module


def test_blocks_and_their_trained_layers_are_cut_on_their_own(tuned: SafetyFineTuning) -> None:
    strategy = FSDP1()
    strategy.shard(tuned, tuned.model)
    cut = strategy.kwargs["auto_wrap_policy"]._lambda_fn
    names = {name.rpartition("base_model.model.")[2] for name, module in tuned.named_modules() if cut(module)}
    blocks = {f"model.vision_tower.encoder.layers.{i}" for i in range(3)} | {
        f"model.language_model.layers.{i}" for i in range(2)
    }
    adapters = {name for name in names if ".lora_" in name}
    assert names == blocks | adapters and adapters
    assert {p.dtype for n, p in tuned.named_parameters() if "lora_" in n} == {torch.float32}  # beside bfloat16


def test_a_block_of_two_precisions_is_refused(tuned: SafetyFineTuning) -> None:
    tuned.model.get_base_model().model.language_model.layers[0].input_layernorm.float()
    with pytest.raises(ConfigError, match=r"here one has bfloat16 and float32; take fsdp2"):
        FSDP1().shard(tuned, tuned.model)
