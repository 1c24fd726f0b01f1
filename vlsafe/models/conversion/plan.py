"""Where each tensor of the new model comes from: decided and checked key by key, then carried out file by file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from vlsafe.errors import DataError, VlsafeError
from vlsafe.models.conversion import shards
from vlsafe.models.conversion.lora import Delta


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Step:
    """One tensor of the new model: its ``name``, and how it is made of the tensors under ``keys`` of one file.

    Without keys, the very tensor that the step was asked for.
    """

    name: str
    keys: tuple[str, ...] = ()
    make: Callable[..., Tensor] = _as_it_is
    file: Path | None = None


@dataclass(frozen=True)
class Source:
    """Weight files and what becomes of a key in them: a Step, or None for one that the new model has no use for."""

    files: Sequence[Path]
    step: Callable[[str], Step | None]


@dataclass
class Plan:
    """``steps``: name in the new model -> where it comes from. ``left_out``: original keys without a use."""

    steps: dict[str, Step] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    shapes: dict[str, Tensor] = field(default_factory=dict)
    merged: int = 0


def planned(
    expected: Mapping[str, Tensor],
    sources: Sequence[Source],
    constants: Mapping[str, Callable[[], Tensor]],
    deltas: Mapping[str, Delta],
    merge: bool = True,
) -> Plan:
    """The plan for a model whose tensors are ``expected`` (name -> shape).

    A source earlier in the list wins over a later one; ``constants`` fill what none has. ``deltas`` must fit, and are
    added to their weights unless ``merge`` is off. Raises one DataError that lists every missing and unexpected key and
    every wrong shape.
    """
    plan, problems = Plan(shapes=dict(expected)), []
    for source in sources:
        problems += _take(plan, expected, source)
    for name, make in constants.items():
        plan.steps.setdefault(name, Step(name, make=make))
    problems += [
        f"missing: nothing gives {name} {_size(expected[name])}" for name in expected if name not in plan.steps
    ]
    for name, delta in deltas.items():
        if name not in plan.steps:
            problems.append(f"unexpected: LoRA weights for {name}, which the model does not have")
        elif delta.shape != tuple(expected[name].shape):
            problems.append(f"shape: LoRA weights for {name} give {list(delta.shape)}, not {_size(expected[name])}")
    if problems:
        raise DataError(problems)
    if merge:
        for name, delta in deltas.items():
            plan.steps[name] = _merging(plan.steps[name], delta)
        plan.merged = len(deltas)
    return plan


def _take(plan: Plan, expected: Mapping[str, Tensor], source: Source) -> list[str]:
    """Add a source's tensors to the plan; returns what is wrong with them."""
    problems, new = [], {}
    for file in source.files:
        found = shards.header(file)
        for key in found:
            step = source.step(key)
            if step is None:
                plan.left_out.append(key)
                continue
            step = replace(step, keys=step.keys or (key,), file=file)
            absent = [part for part in step.keys if part not in found]
            if step.name not in expected:
                problems.append(f"unexpected: {file.name} holds {key}, which the model does not have")
            elif absent:
                problems.append(f"missing: {file.name} holds {key} without {', '.join(absent)}")
            elif step.name in new:
                problems.append(f"unexpected: {step.name} comes twice, the second time in {file.name}")
            else:
                new[step.name] = step
                made = step.make(*(found[part] for part in step.keys))
                if made.shape != expected[step.name].shape:
                    wanted = _size(expected[step.name])
                    problems.append(f"shape: {key} in {file.name} gives {_size(made)}, the config asks for {wanted}")
    for name, step in new.items():
        plan.steps.setdefault(name, step)
    return problems


def _merging(step: Step, delta: Delta) -> Step:
    return replace(step, make=lambda *tensors: delta.onto(step.make(*tensors)))


def carried_out(plan: Plan, folder: Path, dtype: torch.dtype) -> shards.ShardWriter:
    """Write every tensor of the plan in ``dtype``. One file is open at a time, and one shard is in memory."""
    needed = sum(shape.numel() for shape in plan.shapes.values()) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise VlsafeError(f"{folder.parent}: {needed / 2**30:.1f} GiB are needed there, {free / 2**30:.1f} are free")
    writer = shards.ShardWriter(folder)
    files = sorted({step.file for step in plan.steps.values() if step.file is not None})
    for file in track(files, "converting", console=Console(stderr=True), transient=True):
        with shards.opened(file) as tensors:
            for name, step in plan.steps.items():
                if step.file == file:
                    writer.add(name, _own(step.make(*(tensors[key] for key in step.keys)), dtype))
    for name, step in plan.steps.items():
        if step.file is None:
            writer.add(name, _own(step.make(), dtype))
    writer.close()
    return writer


def _own(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """In memory of its own: what lies in a mapped file would keep the file open."""
    return tensor.to(dtype, copy=True).contiguous()


def grown(tensor: Tensor, rows: int) -> Tensor:
    """An embedding or head [vocabulary, width] with ``rows`` more, each the mean of those it has.

    So no new id is ever the likeliest: its logit is the mean of the others.
    """
    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(rows, -1)])


def vocabulary(tokens: int, rows: int) -> int:
    """Rows for a tokenizer of ``tokens`` over an embedding of ``rows``: a multiple of 64, as matrix kernels like it and
    as Hugging Face's own converted LLaVA checkpoints have it (32000 -> 32064)."""
    return rows if tokens <= rows else -(-tokens // 64) * 64


def _size(tensor: Tensor) -> str:
    return str(list(tensor.shape))
