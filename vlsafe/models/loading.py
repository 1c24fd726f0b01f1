"""The model of a backbone, each weight read once, in the precision in which it is trained or kept.

What trains is float32: weights, gradients and both moments of AdamW. In bfloat16 most weights would round a step of
1e-5 away. What is frozen is in the backbone's ``dtype``, and autocast computes (``trainer.precision: bf16-mixed``).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch
from lightning.pytorch.strategies import Strategy
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Plan, adapted_by, original_name, planned
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.pieces import read_in_pieces
from vlsafe.models.components import Components
from vlsafe.models.quantised import require_quantisation
from vlsafe.strategies.filling import Rows, StandIn, cast, read_now
from vlsafe.strategies.fsdp2 import FSDP2

_REFUSED = {
    "bf16-true": "keeps weights and AdamW's moments in bfloat16, which rounds most steps of a usual learning rate away",
    "16-true": "keeps weights and AdamW's moments in float16, which rounds most steps of a usual learning rate away",
    "16-mixed": "scales float16's gradients, which are summed and clipped here unscaled",
}


def check_precision(precision: str, backbone: Backbone) -> None:
    """Raises ConfigError where ``trainer.precision`` would train weights in less than float32, or compute in another
    precision than the weights are in."""
    remedy = "set trainer.precision: bf16-mixed; what trains is then float32, what is frozen model.backbone.dtype"
    if precision in _REFUSED or precision.startswith("transformer-engine"):
        raise ConfigError(f"trainer.precision {precision} {_REFUSED.get(precision, 'is not supported')}; {remedy}")
    if precision == "32-true" and backbone.dtype != "float32":
        raise ConfigError(
            f"trainer.precision 32-true computes in float32, but model.backbone.dtype is {backbone.dtype}; {remedy}. "
            "Or set model.backbone.dtype: float32"
        )


def check_strategy(strategy: Strategy, components: Components) -> None:
    """Raises ConfigError where ``strategy`` cannot train these components."""
    if isinstance(strategy, FSDP2) and components.quantises:
        raise ConfigError(
            "trainer.strategy: 4-bit weights (train: qlora) cannot be cut over processes; take ddp, under which "
            "each holds all of them, or train: lora"
        )


def adapted(
    backbone: Backbone, components: Components, sharded: bool
) -> tuple[PreTrainedModel | PeftModel, Plan, Rows | None]:
    """The model as the component table says, on the default device, and its plan.

    Where its files allow, nothing is read before it is known what trains, so that what trains has the checkpoint's own
    values, and what is frozen never takes more than its own type.

    Args:
        sharded: leave weights in their files, for each process to read its rows; the third that is returned reads them
            by the names of the adapted model. None where all are read. Weights in 4 bits, and the magnitudes of DoRA,
            are made of whole weights, so these are read whole.

    Raises ConfigError when the table does not fit the model.
    """
    if components.quantises:
        require_quantisation()
    model = _in_files(backbone, components)
    plan = planned(model, backbone, components)
    dtype = getattr(torch, backbone.dtype)
    cast(model, dtype, plan.full)
    rows = None
    if sharded and not components.quantises and not any(tuning.dora for _, tuning in components.items()):
        rows = _left(model)
    else:
        read_now(model)
    tuned = adapted_by(plan, model)
    cast(tuned, dtype, {name for name, parameter in tuned.named_parameters() if parameter.requires_grad})
    for module in tuned.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(_no_wider_than_weights)
    return tuned, plan, rows


def _in_files(backbone: Backbone, components: Components) -> PreTrainedModel:
    """The model with stand-ins for weights where it can be. What trains in full shall not be rounded on its way."""
    lender = copy(backbone)
    if components.trains_in_full:
        lender.dtype = "float32"
    with read_in_pieces():
        return lender.load_model()


def _no_wider_than_weights(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    """A CPU's kernel refuses an input in float32, as trained layers give it, for weights in less; on a GPU autocast
    widens the weights."""
    weight, tensor = module._parameters["weight"], args[0]
    if weight is None or tensor.device.type != "cpu" or tensor.dtype.itemsize <= weight.dtype.itemsize:
        return None
    return (tensor.to(weight.dtype), *args[1:])


def _left(model: nn.Module) -> Rows | None:
    """Reads rows of what is in its files, by the names of the adapted model."""
    left: dict[str, Callable[[int, int | None], torch.Tensor]] = {
        name: p.rows for name, p in model.named_parameters(remove_duplicate=False) if isinstance(p, StandIn)
    }
    return (lambda name, begin, end: left[original_name(name)](begin, end)) if left else None
