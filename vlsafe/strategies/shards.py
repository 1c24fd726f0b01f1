"""Tensors that lie in pieces on several processes, saved by each and read back into any other number of them.

Every process writes ``shard-<rank>.safetensors`` with its rows of each tensor; where they begin and how many there are
in all stands in the file's header. Whoever reads takes the rows that it wants from the files that hold them, so nobody
needs as many processes as there were, and nobody holds more than its own part. Everything of a checkpoint that is no
such tensor is ``rest.pt``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, Shard

REST = "rest.pt"
_ROWS = "rows"
_Tree = dict[str, Any]


def is_sharded(value: Any) -> bool:
    return isinstance(value, DTensor)


def rows_here(tensor: DTensor) -> tuple[int, int]:
    """First and one past the last of the rows of dimension 0 that this process holds. FSDP2 cuts nothing else."""
    parts, part = 1, 0
    for placement, size, coordinate in zip(
        tensor.placements, tensor.device_mesh.shape, tensor.device_mesh.get_coordinate() or (), strict=True
    ):
        if isinstance(placement, Shard):
            if placement.dim != 0:
                raise NotImplementedError(f"a tensor cut along dimension {placement.dim} cannot be saved in shards")
            parts, part = parts * size, part * size + coordinate
    each = -(-tensor.shape[0] // parts)  # as torch.chunk does
    return min(part * each, tensor.shape[0]), min((part + 1) * each, tensor.shape[0])


def holds_first_copy(tensor: DTensor) -> bool:
    """Whether this process is the first of those that hold the same rows (they are replicated under HSDP)."""
    coordinates = tensor.device_mesh.get_coordinate() or ()
    return all(
        isinstance(placement, Shard) or coordinate == 0
        for placement, coordinate in zip(tensor.placements, coordinates, strict=True)
    )


# --- trees: a checkpoint is dictionaries and lists, whose tensors are named by their path ---------------------------


def sharded_tensors(tree: Any, path: tuple[str, ...] = ()) -> dict[str, DTensor]:
    """Path, joined by ``/`` -> each sharded tensor in nested dictionaries and lists."""
    if is_sharded(tree):
        return {"/".join(path): tree}
    children: Iterable[tuple[Any, Any]] = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    )
    return {name: t for key, child in children for name, t in sharded_tensors(child, (*path, str(key))).items()}


def mapped(tree: Any, change: Any, path: tuple[str, ...] = ()) -> Any:
    """The tree with ``change(path, leaf)`` in the place of every leaf."""
    if isinstance(tree, dict):
        return {key: mapped(child, change, (*path, str(key))) for key, child in tree.items()}
    if isinstance(tree, list):
        return [mapped(child, change, (*path, str(i))) for i, child in enumerate(tree)]
    return change("/".join(path), tree)


# --- files ----------------------------------------------------------------------------------------------------------


def write_shard(folder: Path, rank: int, tensors: dict[str, DTensor]) -> Path:
    """This process's rows, as ``shard-<rank>.safetensors``."""
    mine = {name: tensor for name, tensor in tensors.items() if holds_first_copy(tensor)}
    rows = {name: [*rows_here(tensor), tensor.shape[0]] for name, tensor in mine.items()}
    local = {name: tensor.to_local().detach().cpu().contiguous() for name, tensor in mine.items()}
    file = folder / f"shard-{rank:05d}.safetensors"
    save_file({name: tensor for name, tensor in local.items() if tensor.numel()}, file, {_ROWS: json.dumps(rows)})
    return file


class Shards:
    """The shards of a checkpoint folder, opened for reading."""

    def __init__(self, folder: Path) -> None:
        self._open = ExitStack()
        self._pieces: dict[str, list[tuple[int, int, Any]]] = {}
        self._size: dict[str, int] = {}
        for file in sorted(folder.glob("shard-*.safetensors")):
            opened = self._open.enter_context(safe_open(file, "pt"))
            rows: dict[str, list[int]] = json.loads(opened.metadata()[_ROWS])
            for name, (begin, end, size) in rows.items():
                self._size[name] = size
                if end > begin:
                    self._pieces.setdefault(name, []).append((begin, end, opened))

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()

    def __contains__(self, name: str) -> bool:
        return name in self._size

    def rows(self, name: str, begin: int = 0, end: int | None = None) -> Tensor:
        """Rows ``begin`` to ``end`` of a tensor, read from the files that hold them. [end - begin, ...]"""
        end = self._size[name] if end is None else end
        found = [
            opened.get_slice(name)[max(begin, first) - first : min(end, last) - first]
            for first, last, opened in sorted(self._pieces[name], key=lambda piece: piece[0])
            if first < end and begin < last
        ]
        if not found:
            _, _, opened = self._pieces[name][0]
            return opened.get_slice(name)[0:0]
        return found[0] if len(found) == 1 else torch.cat(found)


_MARK = "vlsafe:in-shards"


def without_shards(tree: _Tree) -> _Tree:
    """The tree with a mark in the place of every sharded tensor."""
    return mapped(tree, lambda _, leaf: _MARK if is_sharded(leaf) else leaf)


def assembled(folder: Path, rest: _Tree) -> _Tree:
    """The whole checkpoint, its sharded tensors put together on the CPU."""
    with Shards(folder) as shards:
        return mapped(rest, lambda path, leaf: shards.rows(path) if _is_mark(leaf) else leaf)


def assembled_like(folder: Path, rest: _Tree, like: dict[str, DTensor]) -> _Tree:
    """The checkpoint, with each tensor that ``like`` names cut as it is there: every process reads its own rows."""

    def read(path: str, leaf: Any) -> Any:
        if not _is_mark(leaf):
            return leaf
        return shards.rows(path, *rows_here(like[path])) if path in like else shards.rows(path)

    with Shards(folder) as shards:
        return mapped(rest, read)


def _is_mark(leaf: Any) -> bool:
    return isinstance(leaf, str) and leaf == _MARK


# --- whole tensors --------------------------------------------------------------------------------------------------


def local(tensor: Tensor) -> Tensor:
    """What of a tensor lies here, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def put_together(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, on its device; every process must ask for it. Any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(value: Any) -> Any:
    """A sharded tensor put together on the CPU; every process must ask for it. Anything else as it is."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def on_first(tensor: Tensor) -> Tensor | None:
    """A sharded tensor put together on the first process's CPU; None on the others, none of which ever holds more than
    its own part. Every process must ask for it. Any other tensor as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    dimension = next((d for d, placement in enumerate(tensor.placements) if isinstance(placement, Shard)), None)
    if dimension is None or not holds_first_copy(tensor):
        return None if distributed.get_rank() else tensor.to_local().cpu()
    group, mine = tensor.device_mesh.get_group(dimension), tensor.to_local()
    padded = mine.new_zeros(-(-tensor.shape[0] // group.size()), *tensor.shape[1:])
    padded[: len(mine)] = mine
    pieces = [torch.empty_like(padded) for _ in range(group.size())] if group.rank() == 0 else None
    distributed.gather(padded, pieces, group=group, group_dst=0)
    return None if pieces is None else torch.cat([piece.cpu() for piece in pieces])[: tensor.shape[0]]


def cut(value: Tensor, like: Tensor) -> Tensor:
    """``value``, whole or this process's rows of it, cut as ``like`` is and on its device."""
    if not isinstance(like, DTensor):
        return value.to(like.device)
    begin, end = rows_here(like)
    local = value[begin:end] if value.shape == like.shape else value
    return placed(local.to(like.device), like)


def placed(rows: Tensor, like: DTensor) -> DTensor:
    """This process's ``rows`` of a tensor that is cut as ``like`` is."""
    return DTensor.from_local(
        rows.contiguous(), like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
