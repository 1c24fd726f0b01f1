"""The component table: exactly what it names trains, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fitting import FROZEN, FULL, LORA, changed, data, files, module, tensors, trainer

from vlsafe import SafetyFineTuning
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components, Tuning


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files(tmp_path)


def step(tuned: SafetyFineTuning, folder: Path) -> tuple[set[str], set[str]]:
    """Names of all tensors, and of those that one optimizer step changed."""
    tuned.configure_model()
    for name, parameter in tuned.named_parameters():  # adapters start at zero, where half of them has no gradient
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    before = tensors(tuned)
    trainer(folder, max_steps=1).fit(tuned, datamodule=data(folder, batch_size=8))
    return set(before), changed(before, tensors(tuned))


def test_the_projector_in_full_and_adapters_in_the_language_model(tokenizer: Path, folder: Path) -> None:
    names, moved = step(module(tokenizer, Components(FROZEN, FULL, LORA)), folder)
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert moved == {name for name in names if "lora_" in name} | {
        name for name in names if "multi_modal_projector.modules_to_save" in name
    }
    adapted = {name.split(".lora_")[0] for name in moved if "lora_" in name}
    assert {path.rsplit(".", 1)[1] for path in adapted} == set(layers)
    assert len(adapted) == 2 * len(layers) and all(".language_model.layers." in path for path in adapted)
    assert sum("modules_to_save" in name for name in moved) == 4


def test_the_language_model_in_full(tokenizer: Path, folder: Path) -> None:
    names, moved = step(module(tokenizer, Components(FROZEN, FROZEN, FULL)), folder)
    assert moved == {name for name in names if name.startswith(("model.language_model.", "lm_head."))}


def test_the_encoder_in_full_up_to_the_layer_that_is_read(tokenizer: Path, folder: Path) -> None:
    names, moved = step(module(tokenizer, Components(FULL, FROZEN, FROZEN)), folder)
    unread = ("model.vision_tower.encoder.layers.2.", "model.vision_tower.post_layernorm.")
    vision = {name for name in names if name.startswith("model.vision_tower.") and not name.startswith(unread)}
    # a bias of the keys shifts all scores of a query alike: its gradient is rounding noise, which may be nothing at all
    assert moved | {name for name in vision if name.endswith("k_proj.bias")} == vision


def test_adapters_in_the_encoder_stay_out_of_the_language_model(tokenizer: Path, folder: Path) -> None:
    _, moved = step(module(tokenizer, Components(replace(LORA, targets=["q_proj", "v_proj"]), FROZEN, FROZEN)), folder)
    adapted = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in moved}
    assert adapted == {
        f"model.vision_tower.encoder.layers.{layer}.self_attn.{name}"
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
    }


def test_adapters_in_two_components_with_a_rank_each(tokenizer: Path, folder: Path) -> None:
    table = Components(replace(LORA, rank=3, alpha=6), FULL, replace(LORA, rank=5, alpha=5))
    tuned = module(tokenizer, table)
    tuned.configure_model()
    ranks = {
        (("vision" if "vision_tower" in n else "language"), len(p))
        for n, p in tuned.named_parameters()
        if "lora_A" in n
    }
    assert ranks == {("vision", 3), ("language", 5)}
    scalings = {
        ("vision" if "vision_tower" in n else "language", m.scaling["default"])
        for n, m in tuned.named_modules() if "lora_A" in dict(m.named_children())
    }  # fmt: skip
    assert scalings == {("vision", 2.0), ("language", 1.0)}
    assert step(tuned, folder)[1] == {n.removeprefix("model.") for n, p in tuned.named_parameters() if p.requires_grad}


def test_adapters_in_the_encoder_beside_a_language_model_in_full(tokenizer: Path, folder: Path) -> None:
    names, moved = step(module(tokenizer, Components(LORA, FROZEN, FULL)), folder)
    assert moved == {n for n in names if "lora_" in n} | {
        n for n in names if "modules_to_save" in n and ("language_model" in n or "lm_head" in n)
    }


def test_a_frozen_encoder_keeps_its_statistics_and_its_mode(tokenizer: Path, folder: Path) -> None:
    tuned = module(tokenizer, encoder="efficientnet_lite0")
    names, moved = step(tuned, folder)
    assert any("running_mean" in name for name in names)
    assert not any("vision_tower" in name for name in moved)
    tuned.train()
    modes = {name: part.training for name, part in tuned.named_modules()}
    assert not any(training for name, training in modes.items() if "vision_tower" in name)
    assert all(training for name, training in modes.items() if "language_model" in name)


def test_a_trained_encoder_learns_its_statistics_but_not_from_blank_pictures(tokenizer: Path, folder: Path) -> None:
    _, moved = step(module(tokenizer, Components(FULL, FROZEN, FROZEN), "efficientnet_lite0"), folder)
    assert any("running_mean" in name for name in moved)
    tuned = module(tokenizer, Components(FULL, FROZEN, FROZEN), "efficientnet_lite0")
    tuned.configure_model()
    before, modes = tensors(tuned), [part.training for part in tuned.modules()]
    tuned.backbone.blank_features(tuned.model)  # type: ignore[arg-type]
    assert changed(before, tensors(tuned)) == set()
    assert any(modes) and [part.training for part in tuned.modules()] == modes


def test_the_summary_counts_what_trains(tokenizer: Path) -> None:
    tuned = module(tokenizer)
    tuned.configure_model()
    rows = {row["component"]: row for row in tuned.trained}
    projector = 16 * 16 + 16 + 16 * 16 + 16
    adapters = 2 * 2 * (4 * (16 + 16) + 3 * (16 + 32))  # 2 layers, rank 2, in + out widths of attention and MLP
    assert (rows["vision"]["trainable"], rows["projector"]["trainable"]) == (0, projector)
    assert rows["language"]["trainable"] == adapters
    assert rows["projector"]["parameters"] == projector
    plain = tuned.backbone.load_model()
    assert sum(row["parameters"] for row in rows.values()) == sum(p.numel() for p in plain.parameters())
    assert rows["language"]["note"] == "rank 2, alpha 4, embeddings frozen, head frozen"


def test_building_twice_builds_once(tokenizer: Path) -> None:
    tuned = module(tokenizer)
    tuned.configure_model()
    first = tuned.model
    tuned.configure_model()
    assert tuned.model is first


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            Components(Tuning("frozen", 1e-3), FULL, FULL),
            "model.components.vision is frozen but has a learning_rate; remove it or set train: full",
        ),
        (Components(projector=Tuning("full")), "model.components.projector is trained (full) but has no learning_rate"),
        (Components(language=Tuning("lora")), "model.components.language is trained (lora) but has no learning_rate"),
        (
            Components(language=Tuning("full", -1.0)),
            "model.components.language.learning_rate is -1.0; freeze the component instead",
        ),
        (
            Components(language=Tuning("lora", 1e-3, rank=0)),
            "model.components.language.rank is 0, must be at least 1",
        ),
        (Components(), "model.components freezes every component, so nothing would train"),
    ],
)
def test_what_is_wrong_with_the_table_before_weights_load(tokenizer: Path, table: Components, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        module(tokenizer, table)
    assert str(caught.value) == words


def test_several_contradictions_are_told_at_once(tokenizer: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"2 problems:\n  - model.components.vision .*\n  - model.components.language "
    ):
        module(tokenizer, Components(Tuning("frozen", 1.0), FULL, Tuning("full")))
    with pytest.raises(ConfigError, match=r"model.warmup_ratio is 1.0, must be at least 0 and below 1"):
        module(tokenizer, warmup_ratio=1.0)


def test_adapter_targets_that_no_layer_has_are_named(tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.components.language: no linear layer is named \['qkv'\]"):
        module(tokenizer, Components(FROZEN, FROZEN, replace(LORA, targets=["qkv"]))).configure_model()


def test_adapters_share_one_dropout(tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match="LoRA dropout must be the same for all components"):
        module(tokenizer, Components(LORA, FROZEN, replace(LORA, dropout=0.1))).configure_model()
