"""A LoRA checkpoint of LLaVA is merged into its base as PEFT merges it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from originals import lora_llava, original_llava, write_llava
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from vlsafe.errors import ConfigError, DataError
from vlsafe.models.conversion import lora
from vlsafe.models.conversion.llava import convert_llava


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_lora_weights_are_merged_as_peft_merges_them(
    options: dict[str, Any], llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    source, base, merged = lora_llava(llava, tmp_path, **options)
    convert_llava(source, tmp_path / "out", base=base, vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    for key, tensor in merged.state_dict().items():
        assert torch.allclose(written[f"language_model.{key}"][: len(tensor)], tensor, atol=1e-6), key
    before = original_llava(llava)["model.layers.0.mlp.down_proj.weight"]
    assert not torch.allclose(written["language_model.model.layers.0.mlp.down_proj.weight"], before, atol=1e-2)
    projector = llava.model.multi_modal_projector
    assert torch.equal(written["multi_modal_projector.linear_2.weight"], projector.linear_2.weight)


def test_a_delta_written_by_hand() -> None:
    """Rank 2, alpha 6: scale 3."""
    a, b = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    pair = {"base_model.model.q.lora_A.weight": a, "base_model.model.q.lora_B.default.weight": b}
    found = lora.deltas(pair, 6.0, 2, Path("adapter"))
    assert list(found) == ["q"]
    merged = found["q"].onto(torch.ones(2, 3))
    assert merged.tolist() == [[4.0, 1.0, 7.0], [1.0, 7.0, 1.0]]
    assert found["q"].onto(torch.ones(2, 3).half()).dtype == torch.float16


def test_an_original_llava_can_be_the_base_and_the_adapters_projector_wins(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    """Post-hoc LoRA: the base is a LLaVA with a projector of its own."""
    source, _, _ = lora_llava(llava, tmp_path)
    weights = original_llava(llava)
    tuned = torch.load(source / "non_lora_trainables.bin", weights_only=True)
    torch.save({k: v + 1 for k, v in tuned.items()}, source / "non_lora_trainables.bin")
    base = write_llava(tmp_path / "base", weights)
    convert_llava(source, tmp_path / "out", base=base, vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    expected = weights["model.mm_projector.0.weight"] + 1
    assert torch.equal(written["multi_modal_projector.linear_1.weight"], expected)


def test_what_a_lora_checkpoint_lacks_is_said(llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path) -> None:
    source, base, _ = lora_llava(llava, tmp_path)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"lora is a LoRA checkpoint: name the folder of the model that it adapts"):
        convert_llava(source, out, vision_tower=clip)
    config = json.loads((source / "adapter_config.json").read_text())

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            convert_llava(source, out, base=base, vision_tower=clip)
        assert not out.exists()

    (source / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True, "bias": "all"}))
    refused(r"use_dora=True, bias=all cannot be merged shard by shard; merge it with PEFT on its base")
    (source / "adapter_config.json").write_text(json.dumps(config | {"r": 4}))
    refused(r"q_proj has ranks 2 and 2, its config says 4")
    (source / "adapter_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "lora_alpha"}))
    refused(r"adapter_config.json: lacks lora_alpha")
    (source / "adapter_config.json").write_text(json.dumps(config))
    adapter = torch.load(source / "adapter_model.bin", weights_only=True)
    first = next(iter(adapter))
    torch.save({k: v for k, v in adapter.items() if k != first}, source / "adapter_model.bin")
    refused(r"the other half is missing")
    torch.save({k.replace("layers.0", "layers.7"): v for k, v in adapter.items()}, source / "adapter_model.bin")
    refused(r"unexpected: LoRA weights for language_model.model.layers.7.*, which the model does not have")
    torch.save(adapter, source / "adapter_model.bin")
    (source / "non_lora_trainables.bin").unlink()
    refused(r"non_lora_trainables.bin, which holds the projector, is missing")


def test_a_whole_checkpoint_takes_no_base(llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava))
    with pytest.raises(ConfigError, match=r"has no adapter_config.json: its weights are whole, leave --base out"):
        convert_llava(source, tmp_path / "out", base=clip, vision_tower=clip)
