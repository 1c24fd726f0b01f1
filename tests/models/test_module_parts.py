"""Parts of components: the encoder's last layers, embeddings and head, kinds of adapters, rates and weight decay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import FROZEN, FULL, LORA, Seeded, changed, data, files, module, tensors, trainer
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny import VISION, language_model
from torch import nn

from vlsafe import SafetyFineTuning
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import original_name
from vlsafe.models.components import Components, Tuning
from vlsafe.models.export import export_model
from vlsafe.models.quantised import require_quantisation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files(tmp_path)


def tied(tokenizer: Path, components: Components) -> SafetyFineTuning:
    fields = language_model(tokenizer, tie_word_embeddings=True)
    backbone = Seeded("clip", fields, vision_weights=VISION["clip"], attention="sdpa")
    return SafetyFineTuning(backbone, components, warmup_ratio=0.0, schedule="constant")


def built(tokenizer: Path, components: Components, **options: Any) -> SafetyFineTuning:
    made = module(tokenizer, components, **options)
    made.configure_model()
    return made


def trainable(tuned: SafetyFineTuning) -> set[str]:
    assert tuned.model is not None
    return {original_name(name) for name, p in tuned.model.named_parameters() if p.requires_grad}


def step(tuned: SafetyFineTuning, folder: Path) -> set[str]:
    """Original names of the tensors that one optimizer step changed."""
    tuned.configure_model()
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    before = tensors(tuned)
    trainer(folder, max_steps=1).fit(tuned, datamodule=data(folder))
    return {original_name(name) for name in changed(before, tensors(tuned))}


EMBEDDINGS, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
LAST = ("model.vision_tower.encoder.layers.1.",)  # the third layer comes after the one whose output is read


@pytest.mark.parametrize("language", [FROZEN, LORA], ids=["alone", "beside_adapters"])
def test_only_the_last_layer_that_is_read_trains(language: Tuning, tokenizer: Path, folder: Path) -> None:
    moved = step(module(tokenizer, Components(replace(FULL, last_layers=1), FROZEN, language)), folder)
    vision = {name for name in moved if "vision_tower" in name}
    assert len(vision) >= 14 and all(name.startswith(LAST) for name in vision)
    assert all("lora_" in name for name in moved - vision)


def test_adapters_in_the_last_layer_only(tokenizer: Path, folder: Path) -> None:
    moved = step(module(tokenizer, Components(replace(LORA, last_layers=1), FROZEN, FROZEN)), folder)
    assert len({name.split(".lora_")[0] for name in moved}) == 6 and all(name.startswith(LAST) for name in moved)


def test_more_layers_than_there_are_is_an_error(tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=r"last_layers is 3, but model.vision_tower.encoder.layers has 2 layers"):
        built(tokenizer, Components(replace(FULL, last_layers=3), FROZEN, FROZEN))


def test_layers_that_are_frozen_stay_in_eval_mode(tokenizer: Path) -> None:
    tuned = built(tokenizer, Components(replace(FULL, last_layers=1), FROZEN, LORA))
    tuned.train()
    modes = {original_name(f"{name}.")[:-1]: part.training for name, part in tuned._plain().named_modules()}
    assert not any(on for name, on in modes.items() if name.startswith("model.vision_tower.encoder.layers.0"))
    assert all(on for name, on in modes.items() if name.startswith("model.vision_tower.encoder.layers.1"))
    assert not modes["model.multi_modal_projector.linear_1"] and modes["model.language_model.layers.0"]


@pytest.mark.parametrize(
    ("language", "embeddings", "head", "expected"),
    [
        (FULL, None, None, {EMBEDDINGS, HEAD}),
        (FULL, "frozen", None, {HEAD}),
        (FULL, "frozen", "frozen", set()),
        (LORA, None, None, set()),
        (LORA, "full", "frozen", {EMBEDDINGS}),
        (LORA, None, "full", {HEAD}),
        (Tuning(learning_rate=1e-2), "full", None, {EMBEDDINGS}),
    ],
)
def test_embeddings_and_head_as_stated(
    language: Tuning, embeddings: Any, head: Any, expected: set[str], tokenizer: Path, folder: Path
) -> None:
    tuned = module(tokenizer, Components(FROZEN, FROZEN, language, embeddings, head))
    moved = step(tuned, folder)
    assert moved & {EMBEDDINGS, HEAD} == expected
    if language.train == "frozen":
        assert moved == expected
    note = next(row["note"] for row in tuned.trained if row["component"] == "language")
    assert ("embeddings full" in note) == (EMBEDDINGS in expected) and ("head full" in note) == (HEAD in expected)


@pytest.mark.parametrize(
    "components",
    [
        Components(FROZEN, FROZEN, LORA, embeddings="full"),
        Components(FROZEN, FROZEN, LORA, head="full"),
        Components(LORA, FROZEN, FULL),
    ],
    ids=["embeddings", "head", "language"],
)
def test_a_tied_head_stays_the_embeddings_through_training_and_merging(
    components: Components, tokenizer: Path, folder: Path
) -> None:
    tuned = tied(tokenizer, components)
    assert EMBEDDINGS in step(tuned, folder)
    assert "embeddings and tied head full" in tuned.trained[2]["note"]
    trained = tuned._plain().get_input_embeddings().weight.detach().clone()
    export_model(tuned, folder / "model", "")
    assert tuned.model is not None
    assert tuned.model.get_output_embeddings().weight is tuned.model.get_input_embeddings().weight
    assert torch.equal(tuned.model.get_input_embeddings().weight, trained)
    again = type(tuned.model).from_pretrained(folder / "model")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in tuned.model.state_dict().items())


def test_a_tied_head_cannot_go_its_own_way(tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=r"tied to its input embeddings.*set model.components.head to frozen"):
        tied(tokenizer, Components(FROZEN, FROZEN, LORA, embeddings="frozen", head="full")).configure_model()


def test_rslora_scales_by_the_root_of_the_rank_and_dora_trains_magnitudes(tokenizer: Path, folder: Path) -> None:
    tuned = built(tokenizer, Components(FROZEN, FROZEN, replace(LORA, rank=4, alpha=6, rslora=True)))
    assert {m.scaling["default"] for m in tuned.modules() if "lora_A" in dict(m.named_children())} == {3.0}
    dora = module(tokenizer, Components(FROZEN, FROZEN, replace(LORA, dora=True)))
    moved = step(dora, folder)
    assert sum("lora_magnitude_vector" in name for name in moved) == 14
    assert all("lora_" in name and ".language_model." in name for name in moved)
    assert "dora" in dora.trained[2]["note"]


def test_targets_with_what_stands_before_them(tokenizer: Path) -> None:
    tuned = built(tokenizer, Components(FROZEN, FROZEN, replace(LORA, targets=["self_attn.q_proj", "down_proj"])))
    assert tuned.plan is not None
    assert {path.split(".", 4)[4] for path in tuned.plan.adapted} == {"self_attn.q_proj", "mlp.down_proj"}


def test_each_component_has_its_own_weight_decay(tokenizer: Path, folder: Path) -> None:
    table = Components(FROZEN, replace(FULL, weight_decay=0.0), LORA)
    tuned = module(tokenizer, table, weight_decay=0.1)
    made = trainer(folder, max_steps=1)
    made.fit(tuned, datamodule=data(folder))
    assert {g["name"]: g["weight_decay"] for g in made.optimizers[0].param_groups} == {
        "projector": 0.0,
        "language": 0.1,
    }


def test_looking_at_the_model_before_tuning_leaves_what_trains_as_it_was(tokenizer: Path) -> None:
    """PEFT unfreezes whole modules afterwards: checkpoints would hold more than a resumed run expects."""
    tuned = built(tokenizer, Components(FULL, FULL, LORA))
    before = trainable(tuned)
    layers = [module for module in tuned.modules() if isinstance(module, BaseTunerLayer)]
    with tuned.before_tuning():
        assert layers and all(layer.disable_adapters for layer in layers)
        assert trainable(tuned) == before  # FSDP2 would take what does not train now for frozen, and for ever
    assert not any(layer.disable_adapters for layer in layers)
    assert trainable(tuned) == before and any("vision_tower" in name for name in before)


def test_batchnorm_of_an_adapted_encoder_keeps_its_statistics(tokenizer: Path) -> None:
    class Mixed(Seeded):
        def load_model(self) -> Any:
            model = super().load_model()
            model.model.vision_tower.extra = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
            return model

    backbone = Mixed("clip", language_model(tokenizer), vision_weights=VISION["clip"], attention="sdpa")
    tuned = SafetyFineTuning(backbone, Components(LORA, FROZEN, FROZEN))
    tuned.configure_model()
    tuned.train()
    norm, dropout = tuned._plain().model.vision_tower.extra  # type: ignore[union-attr]
    assert not norm.training and dropout.training


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (Components(FROZEN, FULL, replace(FULL, rslora=True)), "language.rslora is for adapters, but train is full"),
        (Components(FROZEN, FULL, replace(FULL, targets=["x"])), "language.targets is for adapters, but train is full"),
        (Components(FROZEN, FULL, replace(FULL, last_layers=1)), "language.last_layers is for the vision encoder"),
        (Components(Tuning(last_layers=1), FULL, FULL), "vision.last_layers says which layers train, but"),
        (Components(replace(FULL, last_layers=0)), "vision.last_layers is 0, must be at least 1"),
        (Components(FROZEN, replace(FULL, weight_decay=-1)), "projector.weight_decay is -1, must not be negative"),
        (Components(Tuning(weight_decay=0.1), FULL), "vision is frozen but has a weight_decay; remove it"),
        (Components(FROZEN, FROZEN, replace(LORA, dropout=1.0)), "language.dropout is 1.0, must be at least 0 and"),
        (Components(FROZEN, FROZEN, replace(LORA, targets=[])), "language.targets is empty"),
        (Components(embeddings="full"), r"language is trained \(its embeddings or head\) but has no learning_rate"),
        (Components(LORA, FROZEN, replace(LORA, dora=True)), "dora must be the same for all components"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_before_weights_load(table: Components, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        table.check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that qlora needs")
def test_qlora_without_a_gpu_is_refused_before_weights_load(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = module(tokenizer, Components(FROZEN, FULL, replace(LORA, train="qlora")))
    monkeypatch.setattr(Seeded, "load_model", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(ConfigError, match="qlora keeps weights in 4 bits, which needs a CUDA GPU; set train: lora"):
        tuned.configure_model()


def test_qlora_without_bitsandbytes_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"vlsafe\[qlora\]"):
        require_quantisation()
