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
from typing import TYPE_CHECKING, Any, TypeVar

from vlsafe.errors import ConfigError
from vlsafe.evaluation.records import Response, Verdict, append_jsonl, read_jsonl, to_json

if TYPE_CHECKING:  # torch takes a second to import
    from lightning.fabric.plugins.environments import ClusterEnvironment
    from torch.distributed import Store

T = TypeVar("T")
R = TypeVar("R", Response, Verdict)
_LONGEST = timedelta(days=7)
"""How long processes wait for one another; one that dies is noticed by what started them, which ends the others (srun
with ``--kill-on-bad-exit``)."""
_FOUND_WITHIN = timedelta(minutes=10)


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

    def exchanged(self, mine: T) -> list[T]:
        """What each of them gives, by rank; all of them must."""
        if self.number == 1:
            return [mine]
        import torch.distributed

        everyones: list[Any] = [None] * self.number
        torch.distributed.all_gather_object(everyones, mine)
        return everyones

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
        rows = list(_appended(fresh, path if self.number == 1 else _part(path, self.rank), batch))
        self.done()
        return rows

    def done(self) -> None:
        """This process has done its share; the others may need it for theirs."""


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun or srun started, this one among them; without either, this one alone.

    Raises ConfigError where srun's settings do not say which tasks there are, or where some do not come.
    """
    import torch

    environment = _started_by()
    if environment is None or environment.world_size() == 1:
        yield ALONE
        return
    rank, number = environment.global_rank(), environment.world_size()
    if torch.cuda.is_available():  # srun may show a task no device but its own
        torch.cuda.set_device(environment.local_rank() % torch.cuda.device_count())
    store = _store(environment)
    # they only wait for each other, on the CPU
    torch.distributed.init_process_group("gloo", timeout=_LONGEST, store=store, rank=rank, world_size=number)
    try:
        yield Processes(rank, number)
    finally:
        torch.distributed.destroy_process_group()


def _started_by() -> ClusterEnvironment | None:
    """What started this process; torchrun first, which srun may have started."""
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if not SLURMEnvironment.detect():
        return None
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:  # its check of what srun was told
        raise ConfigError(str(error)) from error


def _store(environment: ClusterEnvironment) -> Store | None:
    """Where processes find each other: torchrun's own, or one that srun's first task opens."""
    from lightning.fabric.plugins.environments import SLURMEnvironment
    from torch.distributed import DistError, TCPStore

    if not isinstance(environment, SLURMEnvironment):
        return None
    number, first = environment.world_size(), environment.global_rank() == 0
    try:
        return TCPStore(environment.main_address, environment.main_port, number, first, _FOUND_WITHIN)
    except DistError as error:
        raise ConfigError(
            f"SLURM says that this is one of {number} tasks, but they did not find each other within "
            f"{_FOUND_WITHIN}; start all of them with srun, or one alone with `srun --ntasks=1`: {error}"
        ) from error


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
