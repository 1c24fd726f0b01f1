"""Adapters at other strengths, shards, and what lies beside exported weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fitting import FROZEN, FULL, LORA, data, files, module, trainer
from safetensors.torch import load_file
from torch import Tensor, nn

from vlsafe import SafetyFineTuning
from vlsafe.errors import ConfigError, DataError
from vlsafe.models.components import Components, Tuning
from vlsafe.models.export import export_adapter, export_model
from vlsafe.models.strength import merged, with_adapter

TABLES = {
    "posthoc": Components(FROZEN, FULL, LORA),
    "embeddings": Components(FROZEN, FULL, LORA, embeddings="full"),
    "dora": Components(FROZEN, FULL, replace(LORA, dora=True)),
    "vision": Components(replace(LORA, last_layers=1), FULL, LORA),
}
PEFT_ALONE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText
base, kept, *adapters = sys.argv[1:]
kept = torch.load(kept, weights_only=True)
for name in adapters:
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), name).eval()
    with torch.inference_mode():
        print(name, float((model(**kept["inputs"]).logits - kept[name]).abs().max()))
assert "vlsafe" not in sys.modules
"""


def tuned(tokenizer: Path, table: Components) -> SafetyFineTuning:
    made = module(tokenizer, table)
    made.configure_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in made.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.3)
    return made.eval()


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.fixture(params=TABLES.values(), ids=list(TABLES))
def table(request: pytest.FixtureRequest) -> Components:
    return request.param


def test_strength_0_is_the_base_1_the_tuned_model_and_a_half_lies_between(tokenizer: Path, table: Components) -> None:
    base = module(tokenizer, table).backbone.load_model().state_dict()
    full = copied(tuned(tokenizer, table).model.merge_and_unload().state_dict())  # type: ignore[union-attr,operator]
    at = {s: merged(tuned(tokenizer, table).model, s).state_dict() for s in (0.0, 0.5, 1.0)}  # type: ignore[arg-type]
    assert base.keys() == at[0.0].keys()
    moved = {name for name in base if not torch.equal(base[name], full[name])}
    assert len(moved) >= 14
    for name in base:
        assert torch.equal(at[0.0][name], base[name]) and torch.equal(at[1.0][name], full[name])
        assert torch.allclose(at[0.5][name], (base[name] + full[name]) / 2, atol=1e-6)


def test_half_the_strength_is_half_the_update_of_lora(tokenizer: Path) -> None:
    made = tuned(tokenizer, TABLES["posthoc"])
    layer = made.model.base_model.model.model.language_model.layers[0].mlp.up_proj  # type: ignore[union-attr]
    expected = layer.base_layer.weight + 0.5 * layer.get_delta_weight("default")
    plain = merged(made.model, 0.5)  # type: ignore[arg-type]
    assert torch.allclose(plain.model.language_model.layers[0].mlp.up_proj.weight, expected, atol=1e-6)


def test_an_exported_adapter_is_loaded_at_any_strength(tokenizer: Path, table: Components, tmp_path: Path) -> None:
    made = tuned(tokenizer, table)
    folder = export_adapter(made, tmp_path / "adapter", "")
    assert folder is not None
    base = made.backbone.load_model().state_dict()
    none = with_adapter(made.backbone.load_model(), folder, 0).state_dict()
    whole = with_adapter(made.backbone.load_model(), folder, 1).state_dict()
    reference = made.model.merge_and_unload().state_dict()  # type: ignore[union-attr,operator]
    assert all(torch.equal(none[name], base[name]) for name in base)
    assert all(torch.equal(whole[name], reference[name]) for name in base)


def test_an_adapter_is_refused_on_other_weights_and_a_folder_without_one(tokenizer: Path, tmp_path: Path) -> None:
    made = tuned(tokenizer, TABLES["posthoc"])
    folder = export_adapter(made, tmp_path / "adapter", "")
    assert folder is not None
    other = made.backbone.load_model()
    nn.init.zeros_(other.lm_head.weight)
    with pytest.raises(DataError, match="trained over other weights than these"):
        with_adapter(other, folder)
    with pytest.raises(DataError, match="holds no adapter"):
        with_adapter(other, tmp_path)
    with pytest.raises(ConfigError, match="LoRA strength is nan"):
        with_adapter(other, folder, float("nan"))


@pytest.mark.slow
def test_peft_alone_loads_adapters_on_the_saved_base(tokenizer: Path, tmp_path: Path) -> None:
    kept: dict[str, object] = {"inputs": {"input_ids": torch.arange(6, 40)[None]}}
    for name, table in TABLES.items():
        made = tuned(tokenizer, table)
        export_adapter(made, tmp_path / name, "")
        with torch.inference_mode():
            kept[name] = made.model(**kept["inputs"]).logits  # type: ignore[misc,arg-type]
    made.backbone.load_model().save_pretrained(tmp_path / "base")
    torch.save(kept, tmp_path / "kept.pt")
    command = [sys.executable, "-c", PEFT_ALONE, "base", "kept.pt", *TABLES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} 0.0" for name in TABLES]


@pytest.mark.parametrize("projector", [FULL, FROZEN, LORA], ids=["full", "frozen", "lora"])
def test_the_projector_lies_beside_the_adapter(projector: Tuning, tokenizer: Path, tmp_path: Path) -> None:
    made = tuned(tokenizer, Components(FROZEN, projector, LORA))
    export_adapter(made, tmp_path / "adapter", "")
    found = load_file(tmp_path / "adapter" / "projector.safetensors")
    prefix = "model.multi_modal_projector."
    assert set(found) == {f"{prefix}linear_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    base = made.backbone.load_model().state_dict()
    whole = made.model.merge_and_unload().state_dict()  # type: ignore[union-attr,operator]
    expected = whole if projector.train == "full" else base  # adapters of its own stay with the other adapters
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert any(not torch.equal(whole[name], base[name]) for name in found) == (projector.train != "frozen")


def test_what_an_export_is_and_belongs_to_stands_beside_it(tokenizer: Path, tmp_path: Path) -> None:
    made = tuned(tokenizer, TABLES["posthoc"])
    export_adapter(made, tmp_path / "adapter", "")
    export_model(made, tmp_path / "model", "", strength=0.5)
    adapter, model = (json.loads((tmp_path / n / "vlsafe.json").read_text()) for n in ("adapter", "model"))
    assert (adapter["kind"], model["kind"], model["lora_strength"]) == ("adapter", "model", 0.5)
    assert len(adapter["base_weights"]) == 64 and adapter["dtype"] == "float32"
    assert [row["train"] for row in model["trained"]] == ["frozen", "full", "lora"]


def test_shards_of_the_size_asked_for_load_again_bit_by_bit(tokenizer: Path, tmp_path: Path) -> None:
    made = tuned(tokenizer, TABLES["posthoc"])
    out = export_model(made, tmp_path / "model", "", max_shard_size="20KB")
    shards = sorted(out.glob("model-*.safetensors"))
    assert len(shards) > 2 and (out / "model.safetensors.index.json").is_file()
    assert not list(out.glob("*.bin")) and max(shard.stat().st_size for shard in shards) < 30_000
    assert made.model is not None
    again = type(made.model).from_pretrained(out).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in made.model.state_dict().items())


def test_a_strength_without_adapters_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    made = tuned(tokenizer, Components(FROZEN, FULL, FROZEN))
    with pytest.raises(ConfigError, match=r"LoRA strength 0.5 needs adapters, and this run has none"):
        export_model(made, tmp_path / "model", "", strength=0.5)
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_of_tuned_parts_goes_on_where_it_was(tokenizer: Path, tmp_path: Path) -> None:
    """Embeddings beside adapters, and single layers of the encoder: what is saved is what a new module expects."""
    table = Components(replace(FULL, last_layers=1), FULL, LORA, embeddings="full")
    first = module(tokenizer, table)
    made = trainer(tmp_path, max_steps=2)
    made.fit(first, datamodule=data(files(tmp_path)))
    made.save_checkpoint(tmp_path / "last.ckpt")
    again = module(tokenizer, table)
    trainer(tmp_path, max_steps=2).fit(again, datamodule=data(tmp_path), ckpt_path=tmp_path / "last.ckpt")
    assert first.model is not None and again.model is not None
    state = again.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in first.model.state_dict().items())
