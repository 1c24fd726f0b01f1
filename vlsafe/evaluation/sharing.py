"""One evaluation by several processes: each answers and judges its share, and whatever is lost with a killed process is
done by the next run, on any number of them.

A process appends to a hidden file of its own beside the one that all of them fill, so that no two write to one file.
The first process moves what is in those files into the common one, at the end and before anything is begun; all of
them must see one folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from vlsafe.evaluation.records import Response, Verdict, append_jsonl, read_jsonl, to_json

T = TypeVar("T")
R = TypeVar("R", Response, Verdict)
_LONGEST = timedelta(days=7)
"""How long processes wait for one another; one that dies is noticed by torchrun, which ends the others."""


@dataclass(frozen=True)
class Processes:
    """Those that take part; ``rank`` is this one's number."""

    rank: int = 0
    number: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes what is written once."""
        return self.rank == 0

    def wait(self) -> None:
        """For all of them to come here."""
        if self.number > 1:
            import torch.distributed

            torch.distributed.barrier()

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """What of ``rows``, the same everywhere, this process does: every n-th, so that long and short ones mix."""
        return rows[self.rank :: self.number]

    def collected(self, path: Path, kind: type[R]) -> list[R]:
        """Every row of ``path``, after what processes wrote for it, now or before they were killed, is in it too."""
        self.wait()
        if self.first:
            _collect(path, kind)
        self.wait()
        return read_jsonl(path, kind)

    def kept(self, fresh: Iterable[R], path: Path, batch: int) -> list[R]:
        """Append this process's records in groups of ``batch`` as they come; a kill costs one group."""
        return list(_appended(fresh, path if self.number == 1 else _part(path, self.rank), batch))


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, this one among them; without it, this one alone."""
    import torch
    from lightning.fabric.plugins.environments import TorchElasticEnvironment

    if not TorchElasticEnvironment.detect():
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(TorchElasticEnvironment().local_rank())
    torch.distributed.init_process_group("gloo", timeout=_LONGEST)  # they only wait for each other, on the CPU
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f".{path.name}.part-{rank:05d}")


def _collect(path: Path, kind: type[R]) -> None:
    parts = sorted(path.parent.glob(f".{path.name}.part-*"))
    if not parts:
        return
    there = {to_json(row) for row in read_jsonl(path, kind)}  # a kill may have come after a part was moved
    append_jsonl(path, (row for part in parts for row in read_jsonl(part, kind) if to_json(row) not in there))
    for part in parts:
        part.unlink()


def _appended(records: Iterable[R], path: Path, batch: int) -> Iterator[R]:
    """Pass records on and append them to ``path`` in groups, the last group also when something goes wrong."""
    waiting: list[R] = []
    try:
        for record in records:
            waiting.append(record)
            if len(waiting) >= batch:
                append_jsonl(path, waiting)
                waiting = []
            yield record
    finally:
        if waiting:
            append_jsonl(path, waiting)
