"""Two processes run a sharded model a different number of times, along different paths, and nobody waits in vain."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from processes import saved, together
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from vlsafe.errors import VlsafeError
from vlsafe.strategies.lockstep import Lockstep, in_step


class Toy(nn.Module):
    """Two blocks that see, three that tell, and a head in no block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sees = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.tells = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, image: Tensor | None = None, skip: int = 9) -> Tensor:
        """``skip``: the block that tells which is left out, as cross-attention is where there is no image."""
        if image is not None:
            x = x + self.seen(image)
        for place, block in enumerate(self.tells):
            x = x if place == skip else torch.tanh(block(x))
        return self.head(x)

    def seen(self, image: Tensor) -> Tensor:
        for block in reversed(self.sees):  # not in the order in which they are listed
            image = torch.tanh(block(image))
        return image


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Toy()

    def gathered(self, work: Callable[[], Any]) -> Any:
        return work()


WORK: dict[str, list[list[dict[str, Any]]]] = {
    "one has more to do": [[{}, {}, {}, {}], [{}]],
    "one has nothing": [[], [{"image": True}, {}]],
    "one sees": [[{"image": True}, {}, {"image": True}], [{}, {}]],
    "one leaves a block out": [[{"skip": 1}, {"skip": 1}], [{"image": True}]],
    "one ends with a block left out": [[{"skip": 2}], [{}, {}, {}]],
    "nobody has anything": [[], []],
}


def arguments(number: int, image: bool = False, **more: Any) -> dict[str, Any]:
    x = torch.full((1, 4), 0.1 * (number + 1))
    return {"x": x, "image": -x if image else None} | more


def cut() -> Root:
    root = Root()
    for block in [*root.model.sees, *root.model.tells]:
        fully_shard(block)
    fully_shard(root)
    register_fsdp_forward_method(root, "gathered")
    return root


def joined(folder: Path, work: Callable[[Root, Path], Any]) -> None:
    dist.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=2)
    work(cut(), folder)


def stepping(root: Any) -> AbstractContextManager[Lockstep]:
    def see() -> None:
        root.gathered(lambda: root.model.seen(torch.zeros(1, 4)))

    return in_step(root, root.model, see, torch.device("cpu"))


def work_differs(root: Root, folder: Path) -> None:
    mine, blocks = dist.get_rank(), [*root.model.sees, *root.model.tells]
    for name, both in WORK.items():
        whole: list[int] = []

        def look(*_: Any, whole: list[int] = whole) -> None:
            whole.append(sum(not isinstance(block.weight, DTensor) for block in blocks))

        def work(calls: list[dict[str, Any]] = both[mine]) -> list[Tensor]:
            return [root.model(**arguments(number, **each)) for number, each in enumerate(calls)]

        handles = [block.register_forward_pre_hook(look) for block in blocks]
        counted = patch.object(dist, "all_reduce", wraps=dist.all_reduce)
        with counted as exchange, stepping(root) as lockstep, torch.no_grad():
            found = root.gathered(work)
            lockstep.finish()
        for handle in handles:
            handle.remove()
        assert all(isinstance(parameter, DTensor) for parameter in root.parameters())  # let go of
        told = {"passes": lockstep.passes, "exchanged": exchange.call_count, "whole": max(whole, default=1)}
        torch.save({"found": found} | told, folder / f"{name}-{mine}.pt")


def test_each_gets_its_answers_whatever_the_other_does(tmp_path: Path) -> None:
    together(2, joined, tmp_path, work_differs)
    plain = Toy()
    for name, both in WORK.items():
        ran = [saved(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1)]
        for each, work in zip(ran, both, strict=True):
            expected = [plain(**arguments(number, **one)) for number, one in enumerate(work)]
            assert len(each["found"]) == len(expected)
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(each["found"], expected, strict=True)), name
            assert each["whole"] == 1, name  # one block at a time
        # an exchange for every pass, and one that says it is over: here, and when the context is left
        assert {each["passes"] for each in ran} == {max(len(work) for work in both)}
        assert {each["exchanged"] for each in ran} == {max(len(work) for work in both) + 2}


def error_in_a_pass(root: Root, folder: Path) -> None:
    """The first process fails in a block that sees and in one that tells, and goes on."""
    mine = dist.get_rank()

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    def work() -> list[Tensor]:
        found = []
        for number in range(4):
            broken = {0: root.model.sees[0], 2: root.model.tells[1]}.get(number) if mine == 0 else None
            handle = broken.register_forward_hook(fail) if broken is not None else None
            try:
                found.append(root.model(**arguments(number, image=True)))
            except torch.OutOfMemoryError:
                assert handle is not None
                handle.remove()
                found.append(torch.zeros(0))
        return found

    with stepping(root), torch.no_grad():
        found = root.gathered(work)
    root.gathered(lambda: root.model(**arguments(0, image=True))).sum().backward()  # trains as before
    gradient = root.model.tells[0].weight.grad.full_tensor()  # type: ignore[union-attr]
    torch.save({"found": found, "gradient": gradient}, folder / f"{mine}.pt")


def test_an_error_costs_its_own_pass_alone(tmp_path: Path) -> None:
    together(2, joined, tmp_path, error_in_a_pass)
    plain = Toy()
    expected = [plain(**arguments(number, image=True)) for number in range(4)]
    expected[0].sum().backward()
    for rank in (0, 1):
        ran = saved(tmp_path / f"{rank}.pt")
        failed = [number for number, each in enumerate(ran["found"]) if not each.numel()]
        assert failed == ([0, 2] if rank == 0 else [])
        for number, each in enumerate(ran["found"]):
            assert number in failed or torch.allclose(each, expected[number], atol=1e-6)
        assert torch.allclose(ran["gradient"], plain.tells[0].weight.grad, atol=1e-6)  # type: ignore[arg-type]


def other_has_gone(root: Root, folder: Path) -> None:
    if dist.get_rank() == 1:
        with pytest.raises(KeyError), stepping(root):
            raise KeyError
        return
    with pytest.raises(VlsafeError, match="another process of this run has ended"), stepping(root):
        pass


def test_one_that_has_gone_is_not_waited_for(tmp_path: Path) -> None:
    together(2, joined, tmp_path, other_has_gone, limit=60)
