"""One training step on tensors without storage: what it would hold in memory, and how much it computes.

The very modules of the model run forward and backward, adapters and checkpointing included, under torch's
FakeTensorMode, in which every tensor has a shape, a precision and a lifetime but no data. So nothing is assumed of an
architecture, and a 7B model is traced in seconds on a laptop.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vlsafe.models.backbones.base import Backbone
from vlsafe.planning.workload import Load

_ATEN = torch.ops.aten
_FLOPS: dict[Any, Any] = dict(flop_registry) | {
    # torch counts the attention kernels of GPUs; the CPU's does the same products
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention],
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _ATEN._scaled_dot_product_flash_attention_backward
    ],
}
_NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


@dataclass(frozen=True)
class Traced:
    """Of one micro-batch on one device, in bytes without weights, gradients and optimizer state.

    ``activations``: held when the head is reached. ``peak``: the most at any time. ``with_gradients``: the most of that
    and of the gradients made so far, which counts where no gradients of earlier micro-batches are kept. ``flops``:
    multiplications and additions of matrix products and attention, with what checkpointing computes again.
    ``sees``: whether the vision side could be traced; where its shapes depend on a picture's values, it is left out.
    """

    activations: int
    peak: int
    with_gradients: int
    flops: int
    sees: bool


class Ledger(TorchDispatchMode):
    """Counts bytes of live storages and FLOPs of every operation that runs inside."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = self.gradients = self.peak_with_gradients = self.flops = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = _FLOPS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._born(leaf.untyped_storage())
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size = storage.nbytes()
        weakref.finalize(storage, self._died, key)
        self.live += size
        self._note()

    def _died(self, key: int) -> None:
        self.live -= self._sizes.pop(key)

    def became_gradient(self, parameter: Tensor) -> None:
        """The parameter's gradient is complete: from now on it is no activation."""
        assert parameter.grad is not None
        key = parameter.grad.untyped_storage()._cdata
        size, self._sizes[key] = self._sizes[key], 0
        self.live -= size
        self.gradients += size
        self._note()

    def _note(self) -> None:
        self.peak = max(self.peak, self.live)
        self.peak_with_gradients = max(self.peak_with_gradients, self.live + self.gradients)


def trace(
    model: nn.Module,
    backbone: Backbone,
    sight: Mapping[str, Tensor],
    load: Load,
    autocast: torch.dtype | None = None,
    all_logits: bool = False,
) -> Traced:
    """Trace one micro-batch through a ``model`` of transformers (adapters in place, if any) on fake tensors.

    Args:
        sight: picture tensors of one sample that has pictures, as the processor gives them; only shapes count.
        autocast: precision of the products, where weights are kept in another one.
        all_logits: whether logits are computed at every position and not only at supervised ones.
    """
    held = [*model.parameters(), *model.buffers()]
    ledger = Ledger(held)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(ledger.became_gradient) for p in trainable]
    with ledger:
        with _computing(autocast):
            features, sees = _features(model, backbone, sight, load)
            hidden = _decoded(model, features, load).last_hidden_state
            activations = ledger.live
            loss = _loss(model, hidden, load.rows * load.length if all_logits else load.supervised)
        del features, hidden
        loss.backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad(set_to_none=True)
    return Traced(activations, ledger.peak, ledger.peak_with_gradients, ledger.flops, sees)


def trace_answers(
    model: Any,
    backbone: Backbone,
    sight: Mapping[str, Tensor],
    load: Load,
    new_tokens: int,
    autocast: torch.dtype | None = None,
) -> int:
    """Bytes at most while prompts are answered: of ``load.rows`` rows of ``load.length`` tokens, each ``new_tokens``
    more. Prompts are read in one pass; from then on there are keys and values of all tokens, of one layer twice while
    it grows by a token, and the logits of one position, which are looked at in float32.

    ``model``: in eval mode.
    """
    ledger = Ledger([*model.parameters(), *model.buffers()])
    with ledger, torch.no_grad():
        with _computing(autocast):
            features, _ = _features(model, backbone, sight, load)
            read = _decoded(model, features, load, use_cache=True)
            logits = model.get_output_embeddings()(read.last_hidden_state[:, -1])
        likely = logits.float()
        reading, of_logits = ledger.peak, logits.nbytes + (0 if likely is logits else likely.nbytes)
        kept = read.past_key_values
        del features, read, logits, likely
        cache = ledger.live * (load.length + new_tokens) // load.length
    return max(reading, cache + cache // len(kept) + of_logits)


def _computing(autocast: torch.dtype | None) -> torch.autocast:
    """As Lightning's mixed precision does: what autocast casts is not kept for the next use."""
    return torch.autocast("cpu", autocast, enabled=autocast is not None, cache_enabled=False)


def _features(
    model: nn.Module, backbone: Backbone, sight: Mapping[str, Tensor], load: Load
) -> tuple[list[Tensor], bool]:
    if not sight or not load.pictured:
        return [], True
    pictures = {n: t.new_empty(len(t) * load.pictured, *t.shape[1:]) for n, t in sight.items()}
    try:
        return backbone.picture_features(model, pictures), True
    except _NEEDS_VALUES:
        return [], False


def _decoded(model: Any, features: list[Tensor], load: Load, use_cache: bool = False) -> Any:
    """Through embeddings and decoder; its last hidden state is [rows, length, width]."""
    ids = torch.zeros(load.rows, load.length, dtype=torch.long)
    embeds = model.get_input_embeddings()(ids)
    if features:
        places = torch.zeros(load.rows, load.length, 1, dtype=torch.bool)
        flat = torch.cat([part.flatten(0, -2) for part in features])
        embeds = embeds.masked_scatter(places, flat.to(embeds.dtype))
    return model.get_decoder()(inputs_embeds=embeds, use_cache=use_cache)


def _loss(model: Any, hidden: Tensor, positions: int) -> Tensor:
    chosen = hidden.flatten(0, 1).index_select(0, torch.zeros(positions, dtype=torch.long))
    logits = model.get_output_embeddings()(chosen[None])[0]
    return F.cross_entropy(logits.float(), torch.zeros(positions, dtype=torch.long), reduction="none").sum()


def without_storage(model: nn.Module) -> FakeTensorMode:
    """Turn a model on the ``meta`` device into one of fake CPU tensors, in place; use it inside the mode returned."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        model.to_empty(device="cpu")
    return mode
