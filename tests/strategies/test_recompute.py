"""Recomputed or compiled block by block, the gradients are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import FROZEN, FULL, LORA, Gradients, changed, data, files, module, trainer
from tiny import save_tokenizer
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from vlsafe.errors import ConfigError
from vlsafe.models.components import Components
from vlsafe.strategies.blocks import blocks_of
from vlsafe.strategies.recompute import words_need_gradients

ALL = Components(FULL, FULL, FULL)


def gradients(
    folder: Path, components: Components = ALL, watched: list[bool] | None = None, **options: Any
) -> tuple[dict[str, Any], list[bool]]:
    """Of one step, and which blocks are recomputed; whether the encoder's output has a graph goes to ``watched``."""
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        files(folder)
        save_tokenizer(tokenizer)
    seen, tuned = Gradients(), module(tokenizer, components, **options)
    if watched is not None:
        tuned.configure_model()
        tower = tuned._plain().model.vision_tower
        tower.register_forward_hook(lambda *call: watched.append(call[2].last_hidden_state.grad_fn is not None))
    trainer(folder, max_steps=1, callbacks=[seen]).fit(tuned, datamodule=data(folder, batch_size=2))
    layers = [m for m in tuned.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    return seen.steps[0], [layer.gradient_checkpointing for layer in layers]


def of_those_there(found: dict[str, Any]) -> dict[str, Tensor]:
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def test_recomputing_changes_no_gradient_and_is_per_component(tmp_path: Path) -> None:
    plain, none = gradients(tmp_path)
    assert len(none) == 5 and not any(none)  # three layers that see, two that speak
    for every, expected in [
        (True, [True] * 5),
        ({"language": 1}, [False] * 3 + [True] * 2),
        ({"vision": 2, "language": 2}, [True, False, True, True, False]),
    ]:
        found, chosen = gradients(tmp_path, activation_checkpointing=every)
        assert chosen == expected
        assert changed(of_those_there(plain), of_those_there(found)) == set()


@pytest.mark.parametrize(
    "components",
    [
        Components(FROZEN, FULL, LORA),
        Components(FROZEN, FROZEN, LORA),
        Components(FROZEN, FULL, FROZEN),
        Components(FROZEN, FULL, FULL),
        Components(LORA, FROZEN, FROZEN),
        Components(LORA, FULL, LORA),
        Components(FULL, FROZEN, LORA),
    ],
    ids=lambda table: "-".join(tuning.train for _, tuning in table.items()),
)
def test_no_input_needs_a_gradient_for_it(tmp_path: Path, components: Components) -> None:
    plain, _ = gradients(tmp_path, components)
    graphs: list[bool] = []
    found, _ = gradients(tmp_path, components, graphs, activation_checkpointing=True)
    assert changed(of_those_there(plain), of_those_there(found)) == set()
    assert {name for name, gradient in plain.items() if gradient is None} == {n for n, g in found.items() if g is None}
    assert any(gradient.abs().max() > 0 for gradient in of_those_there(found).values())
    assert graphs and set(graphs) == {components.trains("vision")}  # a frozen encoder keeps none


def test_the_words_alone_are_made_to_need_gradients(tmp_path: Path) -> None:
    tuned = module(save_tokenizer(tmp_path / "tokenizer"), Components(FROZEN, FULL, LORA))
    tuned.configure_model()
    plain = tuned._plain()
    words_need_gradients(plain)
    assert plain.get_input_embeddings()(torch.zeros(1, 2, dtype=torch.long)).requires_grad
    seen = plain.model.vision_tower(torch.zeros(1, 3, 16, 16)).last_hidden_state
    assert not seen.requires_grad


def test_a_component_without_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"activation_checkpointing\.projector is 1.*language, vision"):
        gradients(tmp_path, activation_checkpointing={"projector": 1})


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__file__, reason="torch's CPU compiler splits the path of its headers at spaces")
def test_compiled_blocks_give_the_same_gradients(tmp_path: Path) -> None:
    plain, _ = gradients(tmp_path)
    compiled, _ = gradients(tmp_path, compile=True)
    for name, gradient in plain.items():
        assert gradient is None or torch.allclose(gradient, compiled[name], atol=1e-5), name


def test_blocks_are_layers_and_never_whole_encoders(tmp_path: Path) -> None:
    tuned = module(save_tokenizer(tmp_path / "tokenizer"), ALL)
    tuned.configure_model()
    assert [type(block).__name__ for block in blocks_of(tuned.model)] == ["CLIPEncoderLayer"] * 3 + [
        "LlamaDecoderLayer"
    ] * 2
