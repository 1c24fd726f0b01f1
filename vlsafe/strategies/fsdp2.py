"""FSDP2: weights, gradients and optimizer state in pieces on all processes, gathered block by block when needed.

Every parameter is cut on its own, so frozen and trained ones may share a block, in different precisions (pitfalls H4).
Checkpoints hold what trains, under the names and in the form of a run on one device, so that any strategy goes on from
them on any number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed import new_subgroups_by_enumeration
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer

from vlsafe.checkpointing import CHECKSUMS, AtomicCheckpointIO, appearing, checksum, require_whole, rest_of
from vlsafe.errors import ConfigError
from vlsafe.strategies.blocks import blocks_of
from vlsafe.strategies.filling import Rows, fill, without_storage
from vlsafe.strategies.shards import (
    REST,
    assembled_like,
    cut,
    mapped,
    on_first,
    sharded_tensors,
    without_shards,
    write_shard,
)

_COMPUTES = {"bf16-mixed": torch.bfloat16}
_STEPS = ("training_step", "validation_step", "test_step", "predict_step", "gathered")


class FSDP2(ModelParallelStrategy):
    """Shards every block of the model on its own, and what is left together.

    Args:
        replicas: copies of the sharded model: 1 shards over all processes; ``nodes`` keeps one copy on each node and
            shards inside it, so that only gradients pass between nodes (HSDP).
        compute: precision of gathered weights and of activations; None takes that of ``trainer.precision``: bfloat16
            for ``bf16-mixed``. Gradients are always reduced in float32 (pitfalls C4).
        sharded_checkpoints: every process writes its own part into a folder; false gathers what trains into one file.
        timeout: minutes that a process waits for the others.
    """

    _checkpoint_io: CheckpointIO | None

    def __init__(
        self,
        replicas: int | Literal["nodes"] = 1,
        compute: Literal["float32", "bfloat16"] | None = None,
        sharded_checkpoints: bool = True,
        timeout: float = 30,
        cluster_environment: ClusterEnvironment | None = None,
    ) -> None:
        super().__init__(save_distributed_checkpoint=sharded_checkpoints, timeout=timedelta(minutes=timeout))
        self.replicas = replicas
        self.compute = compute
        if cluster_environment is not None:
            self.cluster_environment = cluster_environment
        self.mesh: DeviceMesh | None = None
        """Processes that the model is cut over: [pieces], or [copies, pieces]."""

    # --- processes ----------------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        world = self.num_nodes * self.num_processes
        self._data_parallel_size, self._tensor_parallel_size = world, 1
        copies = self.num_nodes if self.replicas == "nodes" else self.replicas
        if copies < 1 or world % copies:
            raise ConfigError(
                f"trainer.strategy: {copies} replicas do not divide {world} processes; choose a divisor, or 'nodes'"
            )
        super().setup_environment()
        if not isinstance(self._checkpoint_io, AtomicCheckpointIO):
            self._checkpoint_io = AtomicCheckpointIO()
        self.mesh = self.device_mesh["data_parallel"] if copies == 1 else self._copies(copies, world // copies)

    def _copies(self, copies: int, pieces: int) -> DeviceMesh:
        """[copies, pieces] processes, whose groups wait as long as that of all: torch's own take half an hour."""
        ranks = torch.arange(copies * pieces, device="cpu").view(copies, pieces)
        groups = [new_subgroups_by_enumeration(r.tolist(), timeout=self._timeout)[0] for r in (ranks.T, ranks)]
        return DeviceMesh.from_group(groups, self.root_device.type, mesh=ranks, mesh_dim_names=("replicate", "shard"))

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Of micro-batches before the last, gradients stay within a copy: the copies' are added once a step."""
        root = cast(FSDPModule, self.lightning_module)
        root.set_requires_all_reduce(False)
        try:
            yield
        finally:
            root.set_requires_all_reduce(True)

    @property
    def _files(self) -> AtomicCheckpointIO:
        assert isinstance(self.checkpoint_io, AtomicCheckpointIO)
        return self.checkpoint_io

    def shard(self, root: nn.Module, model: nn.Module, rows: Rows | None = None) -> None:
        """Cut ``model``, block by block; the rest of ``root``, the module whose steps Lightning calls, with itself.

        The steps are made to gather what ``root`` holds, since pictures and the head are not only reached by the
        model's own forward.

        Args:
            rows: reads the weights in whose place ``model`` holds stand-ins (:mod:`vlsafe.strategies.filling`), so that
                no process ever has all of them; None where it has its weights.
        """
        if rows is not None:
            without_storage(model)
        dtype = _COMPUTES.get(self.precision_plugin.precision) if self.compute is None else getattr(torch, self.compute)
        policy = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=dtype is not None
        )
        for block in blocks_of(model):
            fully_shard(block, mesh=self.mesh, mp_policy=policy)
        fully_shard(root, mesh=self.mesh, mp_policy=policy)
        if rows is not None:
            fill(model, rows, self.root_device)
        for step in _STEPS:
            register_fsdp_forward_method(root, step)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True  # our load_checkpoint only reads; model and optimizer are filled where they are for any strategy

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What trains, and buffers: cut as it lies here, or whole on the first process's CPU."""
        assert self.lightning_module is not None
        frozen = {name for name, p in self.lightning_module.named_parameters() if not p.requires_grad}
        return {n: self._kept(t) for n, t in self.lightning_module.state_dict().items() if n not in frozen}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return mapped(super(ModelParallelStrategy, self).optimizer_state(optimizer), lambda _, leaf: self._kept(leaf))

    def _kept(self, value: Any) -> Any:
        if self._save_distributed_checkpoint or not isinstance(value, Tensor):
            return value
        gathered = on_first(value)
        return gathered if self.is_global_zero else None

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        path = Path(self.broadcast(str(filepath)))
        if not self._save_distributed_checkpoint:
            if self.is_global_zero:
                self._files.save_checkpoint(checkpoint, path)
            return
        if self.is_global_zero:
            with appearing(path) as partial:
                partial.mkdir(exist_ok=True)
                for leftover in partial.iterdir():
                    leftover.unlink()
                self._write_shards(checkpoint, partial)
        else:
            self._write_shards(checkpoint, path.with_name(f".{path.name}.partial"))
        self.barrier()

    def _write_shards(self, checkpoint: dict[str, Any], folder: Path) -> None:
        self.barrier()
        file = write_shard(folder, self.global_rank, sharded_tensors(checkpoint))
        mine = [(file.name, checksum(file))]
        everyones: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(everyones, mine)
        if self.is_global_zero:
            torch.save(without_shards(checkpoint), folder / REST)
            sums = dict(entry for entries in everyones for entry in entries)
            sums[REST] = checksum(folder / REST)
            (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2), encoding="utf-8")

    def remove_checkpoint(self, filepath: Any) -> None:
        if self.is_global_zero:
            self._files.remove_checkpoint(filepath)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Of a folder, this process reads its own rows; a file is mapped, and cut when it is filled in."""
        path = Path(self.broadcast(str(checkpoint_path)))
        known = self._files.whole.get(path)
        if known is None and self.is_global_zero:
            require_whole(path)
        self.barrier()
        path = known or path
        if not path.is_dir():
            return rest_of(path, weights_only is not False)
        return assembled_like(path, rest_of(path, weights_only is not False), self._places())

    def _places(self) -> dict[str, Any]:
        """Path in a checkpoint -> the tensor here that is cut as the one there shall be."""
        assert self.lightning_module is not None
        places = {f"state_dict/{name}": p for name, p in self.lightning_module.named_parameters()}
        for number, optimizer in enumerate(self.optimizers):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for index, parameter in enumerate(parameters):
                for kind in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                    places[f"optimizer_states/{number}/state/{index}/{kind}"] = parameter
        return sharded_tensors(places)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        here = self.lightning_module.state_dict()
        with torch.no_grad():
            for name, value in checkpoint["state_dict"].items():
                here[name].copy_(cut(value, here[name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        places = self._places()

        def placed(path: str, leaf: Any) -> Any:
            return cut(leaf, places[path]) if path in places and isinstance(leaf, Tensor) else leaf

        states = mapped({"optimizer_states": list(checkpoint["optimizer_states"])}, placed)["optimizer_states"]
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def hsdp() -> FSDP2:
    """A copy on each node, sharded inside it: between nodes pass only gradients."""
    return FSDP2(replicas="nodes")
