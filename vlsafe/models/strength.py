"""How much of the tuning is left in the weights: 0 is the base model, 1 the tuned one, bit by bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlsafe.errors import ConfigError, DataError
from vlsafe.models.adaptation import original_name
from vlsafe.models.fingerprint import fingerprint
from vlsafe.strategies.shards import put_together

FACTS = "vlsafe.json"
"""Beside an exported model or adapter: what it is and what it belongs to."""


ONE_STRENGTH = "LoRA strength {}: this adapter went on from {}, so weakening it would undo that one too; leave it at 1"


def check_strength(strength: float) -> None:
    """Raises ConfigError unless it is a finite number. Values beyond 0 and 1 go on in the same direction."""
    if not math.isfinite(strength):
        raise ConfigError(f"the LoRA strength is {strength}; give a number, 0 for the base model, 1 for the tuned one")


def base_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The state of the model before it was adapted, by its original names; no copies."""
    return {
        original_name(name): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" not in name and ".modules_to_save." not in name
    }


def merged(model: PeftModel, strength: float = 1.0) -> PreTrainedModel:
    """The plain model with every tuned tensor at ``base + strength * (tuned - base)``; for LoRA that is its update
    times ``strength``. Fully trained modules beside the adapters go the same way. The merge happens in place.

    Worked example: a projector weight of 1.0 that training made 3.0 is 2.0 at strength 0.5.
    """
    check_strength(strength)
    if strength == 1:
        return model.merge_and_unload()
    touched = {original_name(name) for name, _ in model.named_parameters() if ".base_layer." in name}
    touched |= {original_name(name) for name in model.state_dict() if ".modules_to_save." in name}
    before = {name: tensor.clone() for name, tensor in base_tensors(model).items() if name in touched}
    plain: PreTrainedModel = model.merge_and_unload()
    state = plain.state_dict()
    blended: set[int] = set()
    for name, base in before.items():
        if state[name].data_ptr() in blended:  # a tied head is the embeddings under a second name
            continue
        blended.add(state[name].data_ptr())
        if base.is_floating_point():
            tuned = state[name].float().clone()
            state[name].copy_(torch.lerp(base.float(), tuned, strength))
        elif strength == 0:  # counters of BatchNorm have no halves
            state[name].copy_(base)
    return plain


@torch.no_grad()
def merged_in_pieces(model: PeftModel) -> PreTrainedModel:
    """As :func:`merged` at strength 1, of a model that lies in pieces: PEFT merges on each process the rows that lie
    there. Every process must call it; only the factors A are put together, one at a time."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            _merge_rows(layer)
    return model.unload()


def _merge_rows(layer: LoraLayer) -> None:
    """A merge works row by row of the weight: row i of it takes row i of B, all of A, and i of DoRA's magnitudes."""
    base, first = layer.get_base_layer(), set(layer.lora_A.parameters())
    cut = [(m, name, p) for m in layer.modules() for name, p in m.named_parameters(recurse=False)]
    for module, name, parameter in cut:
        rows = put_together(parameter) if parameter in first else parameter.to_local()
        setattr(module, name, nn.Parameter(rows, requires_grad=False))
    layer.merge()
    for module, name, parameter in cut:
        if module is base:
            parameter.to_local().copy_(getattr(module, name))
        setattr(module, name, parameter)


def with_adapter(model: PreTrainedModel, folder: Path | str, strength: float = 1.0) -> PreTrainedModel:
    """``model`` with an exported adapter merged into it, in place.

    Raises DataError when the folder holds no adapter, or one of another base model.
    """
    check_strength(strength)
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise DataError(f"{folder} holds no adapter (no adapter_config.json); a whole model is loaded as it is")
    _check_base(model, folder / FACTS)
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8")) if (folder / FACTS).is_file() else {}
    if strength != 1 and facts.get("went_on_from"):
        raise ConfigError(ONE_STRENGTH.format(strength, facts["went_on_from"]))
    return merged(PeftModel.from_pretrained(model, folder), strength)


def _check_base(model: PreTrainedModel, facts: Path) -> None:
    """Weights can be compared in the precision that they were trained over; in another one only PEFT checks shapes."""
    if not facts.is_file():  # an adapter that PEFT wrote elsewhere
        return
    told = json.loads(facts.read_text(encoding="utf-8"))
    if told["base_weights"] is None or told["dtype"] != str(model.dtype).removeprefix("torch."):
        return
    if told["base_weights"] != fingerprint(model.state_dict()):
        raise DataError(
            f"{facts.parent}: the adapter was trained over other weights than these (its base: "
            f"{told['base'] or 'a composed model'}); load it on the model that it was trained on"
        )
