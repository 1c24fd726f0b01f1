"""A run's model as the planner sees it: counted by component, and traced."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from vlsafe.models.adaptation import Plan, adapted_by, components_of, original_name, planned, set_modes
from vlsafe.models.modes import evaluating
from vlsafe.models.module import SafetyFineTuning
from vlsafe.models.summary import summary
from vlsafe.objectives.sft import SFT
from vlsafe.planning.skeleton import skeleton
from vlsafe.planning.trace import Traced, trace, trace_answers, without_storage
from vlsafe.planning.workload import Load, Workload
from vlsafe.strategies.blocks import blocks_of
from vlsafe.strategies.filling import cast
from vlsafe.strategies.recompute import keep_all, recompute

_MIXED = {"bf16-mixed": torch.bfloat16}
BYTES_IN_4_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in NormalFloat4 with doubly quantised constants: one byte a block of 64, four a block of those (Dettmers et
al. 2023, arXiv 2305.14314, section 3)."""


@dataclass(frozen=True)
class Sizes:
    """What does not depend on the batch, of the whole model; bytes, and numbers of parameters.

    ``block``, ``root``, ``whole``: of the largest block that is sharded on its own, of what is in none, and of all, as
    gathered; ``block_gradients``: gradients of that block. ``adamw``: its two moments. ``exported``: all weights.
    """

    rows: list[dict[str, Any]]
    parameters: int
    trainable: int
    weights: int
    trainable_weights: int
    gradients: int
    adamw: int
    block: int
    root: int
    whole: int
    block_gradients: int
    exported: int


class Shape:
    """Model and adapters of one run, without storage.

    Args:
        module: as the config builds it; nothing of it is changed.
        precision: the Trainer's, ``bf16-mixed`` or ``32-true``.
        sharded: as FSDP2 computes: weights are kept in their precision and gathered in that of the products, so that
            autocast has none to cast.
    """

    def __init__(self, module: SafetyFineTuning, precision: str, sharded: bool = False) -> None:
        self.module = module
        self.autocast = None if sharded else _MIXED.get(precision)
        model = skeleton(module.backbone)
        model.config.use_cache = False
        self.plan: Plan = planned(model, module.backbone, module.components)
        with torch.device("meta"):
            tuned = adapted_by(replace(self.plan, packed=[]), model)  # 4-bit weights are counted, not made
        trained = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
        cast(tuned, getattr(torch, module.backbone.dtype), trained)
        self.sizes = _sizes(tuned, self.plan, module, _MIXED.get(precision))
        if sharded and precision in _MIXED:
            tuned = tuned.to(_MIXED[precision])
        _drop_as_on_a_gpu(tuned)
        self.tuned = tuned
        self._mode = without_storage(tuned)
        self._plain = tuned.get_base_model() if isinstance(tuned, PeftModel) else tuned
        tuned.train()
        set_modes(self.plan, self._plain)

    def traced(self, workload: Workload, load: Load, checkpointing: bool) -> Traced:
        """One micro-batch, with activations kept or computed again."""
        objective = self.module.objective
        every = isinstance(objective, SFT) and objective.logits == "all"
        with self._mode:
            if checkpointing:
                recompute(self._plain, True, components_of(self._plain, self.plan))
            try:
                return trace(self._plain, self.module.backbone, workload.sight, load, self.autocast, every)
            finally:
                keep_all(self._plain)

    def _without_adapters(self) -> AbstractContextManager[None]:
        """As before the first step, and after the last one, when they are merged."""
        return self.tuned.disable_adapter() if isinstance(self.tuned, PeftModel) else nullcontext()

    def answered(self, workload: Workload) -> int:
        """Bytes at most while the run's evaluations answer; 0 where there are none."""
        if workload.answers is None:
            return 0
        load, new = workload.prompts(workload.answers), workload.answers.new_tokens
        with self._mode, evaluating(self._plain), self._without_adapters():
            return trace_answers(self._plain, self.module.backbone, workload.sight, load, new, self.autocast)


class GPUDropout(nn.Dropout):
    """As a GPU's kernel does it: a mask of one byte an element is kept for the backward pass. The CPU's path, on which
    traces run, keeps one in the precision of the input."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.native_dropout(input, self.p, True)[0] if self.training and self.p else input


def _drop_as_on_a_gpu(model: nn.Module) -> None:
    for name, module in [*model.named_modules()]:
        if type(module) is nn.Dropout:
            model.set_submodule(name, GPUDropout(module.p))


def _sizes(tuned: nn.Module, plan: Plan, module: SafetyFineTuning, products: torch.dtype | None) -> Sizes:
    packed = {f"{path}.weight" for path in plan.packed}
    weights = trainable_weights = trainable = 0
    for name, parameter in tuned.named_parameters():
        size = parameter.numel() * parameter.element_size()
        if original_name(name) in packed:
            size = round(parameter.numel() * BYTES_IN_4_BITS)
        weights += size
        if parameter.requires_grad:
            trainable += parameter.numel()
            trainable_weights += size
    weights += sum(buffer.numel() * buffer.element_size() for buffer in tuned.buffers())
    layers = blocks_of(tuned)
    largest = max(layers, key=lambda layer: _bytes(layer, products), default=None)
    block = 0 if largest is None else _bytes(largest, products)
    stacked = {id(parameter) for layer in layers for parameter in layer.parameters()}
    root = sum(_of(p, products) for p in tuned.parameters() if id(p) not in stacked)
    rows = summary(tuned, plan, module.components)
    return Sizes(
        rows=rows,
        parameters=sum(row["parameters"] for row in rows),
        trainable=trainable,
        weights=weights,
        trainable_weights=trainable_weights,
        gradients=trainable_weights,
        adamw=2 * trainable_weights,
        block=block,
        root=root,
        whole=sum(_of(p, products) for p in tuned.parameters()),
        block_gradients=0 if largest is None else sum(_of(p, None) for p in largest.parameters() if p.requires_grad),
        exported=sum(row["parameters"] for row in rows) * getattr(torch, module.backbone.dtype).itemsize,
    )


def _bytes(layer: nn.Module, products: torch.dtype | None) -> int:
    return sum(_of(parameter, products) for parameter in layer.parameters())


def _of(parameter: nn.Parameter, products: torch.dtype | None) -> int:
    return parameter.numel() * (parameter.element_size() if products is None else products.itemsize)
