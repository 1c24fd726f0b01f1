"""FSDP1: the parameters of a block are laid into one flat tensor, which is cut over all processes.

For those who have runs under it to compare with; ``fsdp2`` does the same with less memory and mixes precisions. What
Lightning's own strategy leaves out is here: clipping by norm, checkpoints of what trains in the form of one device,
and reading the weights block by block.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.plugins.precision.fsdp import FSDPPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from torch.distributed.fsdp.wrap import CustomPolicy
from torch.optim import Optimizer

from vlsafe.checkpointing import AtomicCheckpointIO
from vlsafe.errors import ConfigError
from vlsafe.strategies.blocks import blocks_of
from vlsafe.strategies.filling import Rows, without_storage
from vlsafe.strategies.shards import mapped, whole


class FSDP1(FSDPStrategy):
    """Shards every block of the model, each group of trained layers inside one, and what is left together.

    Args:
        compute: precision of gathered weights, of activations and matrix products; None leaves it to
            ``trainer.precision``. Gradients are always reduced in float32 (pitfalls C4).
        timeout: minutes that a process waits for the others.
    """

    def __init__(
        self,
        compute: Literal["float32", "bfloat16"] | None = None,
        timeout: float = 30,
        cluster_environment: ClusterEnvironment | None = None,
    ) -> None:
        super().__init__(
            cluster_environment=cluster_environment,
            timeout=timedelta(minutes=timeout),
            mixed_precision=MixedPrecision(
                param_dtype=None if compute is None else getattr(torch, compute), reduce_dtype=torch.float32
            ),
        )
        self._files = AtomicCheckpointIO()

    @property
    def precision_plugin(self) -> FSDPPrecision:
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        kept = _KeepsWeights(plugin.precision) if isinstance(plugin, FSDPPrecision) else plugin
        FSDPStrategy.precision_plugin.fset(self, kept)

    def setup_environment(self) -> None:
        super().setup_environment()
        self.kwargs["device_mesh"] = init_device_mesh(self.root_device.type, (self.world_size,))

    def shard(self, root: nn.Module, model: nn.Module, rows: Rows | None = None) -> None:
        """Say what of ``model`` is cut on its own; it is cut when Lightning wraps ``root``.

        Args:
            rows: as of :meth:`vlsafe.strategies.fsdp2.FSDP2.shard`; a block is read whole just before it is cut.

        Raises ConfigError where one flat tensor would have to hold two precisions.
        """
        units = _units(model)
        _require_one_precision(root, units)
        self.kwargs["auto_wrap_policy"] = CustomPolicy(units.__contains__)
        if rows is not None:
            paths = {module: path for path, module in model.named_modules()}
            self.kwargs["param_init_fn"] = _Reader(rows, paths, self.root_device)
            without_storage(model)

    def _setup_model(self, model: nn.Module) -> FullyShardedDataParallel:
        """As Lightning's, which names devices by their index: a CPU has none."""
        return FullyShardedDataParallel(
            model,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=self.root_device,
            **self.kwargs,
        )

    def clip_gradients(self, norm: float) -> None:
        """Over all processes, which Lightning refuses (pitfalls H2)."""
        self._cut().clip_grad_norm_(norm)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True  # our load_checkpoint only reads; model and optimizer are filled where they are for any strategy

    def trained(self) -> dict[str, Any]:
        """What trains, and buffers, whole on the CPU. Every process must ask for it."""
        state = get_model_state_dict(self._cut(), options=StateDictOptions(ignore_frozen_params=True))
        return {name: whole(tensor) for name, tensor in state.items()}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        state = self.trained()
        return {name: tensor if self.is_global_zero else None for name, tensor in state.items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """That of one device: states by the number of a parameter, not by its name."""
        named: dict[str, Any] = get_optimizer_state_dict(self._cut(), optimizer)["state"]  # type: ignore[assignment]
        numbers = {name: number for number, name in enumerate(self._names(optimizer))}
        groups = optimizer.state_dict()["param_groups"]
        state = mapped({numbers[name]: entry for name, entry in named.items()}, lambda _, leaf: whole(leaf))
        return {"state": dict(sorted(state.items())), "param_groups": groups} if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        path = Path(self.broadcast(str(filepath)))
        if self.is_global_zero:
            self._files.save_checkpoint(checkpoint, path)
        self.barrier()

    def remove_checkpoint(self, filepath: Any) -> None:
        if self.is_global_zero:
            self._files.remove_checkpoint(filepath)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self._files.load_checkpoint(Path(self.broadcast(str(checkpoint_path))), weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self._cut(), dict(checkpoint["state_dict"]), options=options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, kept in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = self._names(optimizer)
            groups = [{**group, "params": [names[n] for n in group["params"]]} for group in kept["param_groups"]]
            state = {names[number]: entry for number, entry in kept["state"].items()}
            named: dict[str, Any] = {"state": state, "param_groups": groups}
            set_optimizer_state_dict(self._cut(), optimizer, named, options=StateDictOptions(full_state_dict=True))

    def _cut(self) -> FullyShardedDataParallel:
        assert isinstance(self.model, FullyShardedDataParallel)
        return self.model

    def _names(self, optimizer: Optimizer) -> list[str]:
        """Of the optimizer's parameters, in its order, as they are on one device."""
        names = {parameter: unwrapped(name) for name, parameter in self._cut().named_parameters()}
        return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


class _KeepsWeights(FSDPPrecision):
    """Lightning's, which under the precision ``32-true`` would make float32 of weights that are in bfloat16."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module if self.precision == "32-true" else super().convert_module(module)


def unwrapped(name: str) -> str:
    """A parameter's name without what FSDP1 puts around modules."""
    return name.replace("_fsdp_wrapped_module.", "")


class _Reader:
    """Reads the parameters of a module in whose place there is nothing yet; what is shared stays shared."""

    def __init__(self, rows: Rows, paths: dict[nn.Module, str], device: torch.device) -> None:
        self.rows = rows
        self.paths = paths
        self.device = device
        self._read: dict[nn.Parameter, nn.Parameter] = {}

    def __call__(self, module: nn.Module) -> None:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.is_meta:
                continue
            if parameter not in self._read:
                values = self.rows(f"{self.paths[module]}.{name}", 0, len(parameter)).to(self.device)
                self._read[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
            setattr(module, name, self._read[parameter])


def _units(model: nn.Module) -> set[nn.Module]:
    """Blocks, and in a block of which only a part trains the layers that do: a flat tensor of both would keep gradients
    of what is frozen."""
    blocks = blocks_of(model)
    partly = [block for block in blocks if len({p.requires_grad for p in block.parameters()}) > 1]
    layers = {layer for block in partly for layer in block.modules() if _trains_itself(layer)}
    return {*blocks, *layers}


def _trains_itself(layer: nn.Module) -> bool:
    own = list(layer.parameters(recurse=False))
    return bool(own) and not list(layer.children()) and all(parameter.requires_grad for parameter in own)


def _require_one_precision(root: nn.Module, units: set[nn.Module]) -> None:
    def own(module: nn.Module) -> set[torch.dtype]:
        inner = (child for child in module.children() if child not in units)
        return {p.dtype for p in module.parameters(recurse=False)}.union(*map(own, inner))

    mixed = next((found for unit in (root, *units) if len(found := own(unit)) > 1), None)
    if mixed:
        kinds = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in mixed))
        raise ConfigError(
            f"trainer.strategy: fsdp lays all weights of a block into one tensor, and here one has {kinds}; take "
            "fsdp2, which cuts every weight on its own, or set model.backbone.dtype to float32"
        )
