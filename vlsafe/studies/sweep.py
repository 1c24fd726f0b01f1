"""A sweep without a server: trials as processes, a journal that survives a kill, a table that lives."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vlsafe.errors import VlsafeError
from vlsafe.evaluation.records import write_text
from vlsafe.studies.board import Board
from vlsafe.studies.search import open_search, values_of
from vlsafe.studies.sweep_file import SweepFile
from vlsafe.studies.trials import Running, folder_of, last_words, locked, measured, on_the_way, start, stop

if TYPE_CHECKING:
    import optuna

FAILURES_IN_A_ROW = 3
"""So many failed trials, before any has come to its end, stop the sweep: what is wrong is wrong for all of them."""


class Sweep:
    """Runs trials until the study in ``directory`` has ``count`` of them, ``workers`` at a time.

    Each trial is a folder ``trials/NNNN`` with ``command.json``, ``output.log`` and ``run``, its run directory. A trial
    that a kill has left unfinished is run again under its number; one that has finished, also unseen, is only read.
    """

    def __init__(self, sweep: SweepFile, directory: Path, count: int, workers: int, interval: float = 1.0) -> None:
        self.sweep = sweep
        self.directory = directory
        self.count = count
        self.workers = workers
        self.interval = interval
        self.study = open_search(sweep, directory)
        self.running: list[Running] = []
        self._trials: dict[int, optuna.Trial] = {}

    def run(self) -> None:
        """Raises VlsafeError naming the trials that failed, after all others have run."""
        try:
            with Board(self.table, self.states) as board:
                while self._fill() or self.running:
                    board.show()
                    time.sleep(self.interval)
                    self._look()
                board.show()
        finally:
            stop(self.running)
            self._write()
        failed = [each.number for each in self.study.get_trials(deepcopy=False) if each.state.name == "FAIL"]
        if failed:
            folders = {number: folder_of(self.directory, number) for number in failed}
            raise VlsafeError(
                [f"trial {n} failed, see {path}/output.log: {last_words(path)}" for n, path in folders.items()]
            )

    def _fill(self) -> bool:
        """Start trials while there is room; whether any was started."""
        began = len(self.running)
        while len(self.running) < self.workers and not self._hopeless():
            if not (self._take_up() or self._take_new()):
                break
        return len(self.running) > began

    def _take_up(self) -> bool:
        """A trial that was begun and whose process is gone: read if it has finished, else run again."""
        import optuna

        mine = {each.number for each in self.running}
        for frozen in self.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            folder = folder_of(self.directory, frozen.number)
            lock = None if frozen.number in mine else locked(folder)
            if lock is None:
                continue
            trial = optuna.Trial(self.study, frozen._trial_id)
            found = measured(folder, self.sweep.metric)
            if found is not None:
                self.study.tell(trial, found)
                lock.close()
                return self._take_up()
            self._start(trial, lock)
            return True
        return False

    def _take_new(self) -> bool:
        import optuna

        begun = [t for t in self.study.get_trials(deepcopy=False) if t.state != optuna.trial.TrialState.WAITING]
        if len(begun) >= self.count:
            return False
        trial = self.study.ask()
        lock = locked(folder_of(self.directory, trial.number))
        assert lock is not None, "a new trial's folder is nobody else's"
        self._start(trial, lock)
        return True

    def _start(self, trial: optuna.Trial, lock: Any) -> None:
        values = values_of(trial, self.sweep)
        folder = folder_of(self.directory, trial.number)
        self._trials[trial.number] = trial
        self.running.append(start(self.sweep, trial.number, values, folder, lock, self.workers))

    def _look(self) -> None:
        """Read what the running trials have logged; end those that fall behind; tell the journal who has finished."""
        import optuna

        for each in list(self.running):
            trial = self._trials[each.number]
            status = each.process.poll()
            pruned = status is None and self._behind(trial, each.folder)
            if status is None and not pruned:
                continue
            if pruned:
                stop([each])
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                found = measured(each.folder, self.sweep.metric) if status == 0 else None
                failed = optuna.trial.TrialState.FAIL
                self.study.tell(trial, found, state=failed if found is None else None)
            each.lock.close()
            self.running.remove(each)
            self._write()

    def _behind(self, trial: optuna.Trial, folder: Path) -> bool:
        if self.sweep.early is None:
            return False
        known = self.study._storage.get_trial(trial._trial_id).intermediate_values
        for step, value in enumerate(on_the_way(folder, self.sweep.metric), start=1):
            if step not in known:
                trial.report(value, step)
                if trial.should_prune():
                    return True
        return False

    def _hopeless(self) -> bool:
        states = [each.state.name for each in self.study.get_trials(deepcopy=False)]
        return states.count("FAIL") >= FAILURES_IN_A_ROW and "COMPLETE" not in states

    def rows(self) -> list[dict[str, Any]]:
        """Every trial: number, state, values, its metric, seconds, run directory."""
        rows = []
        for each in self.study.get_trials(deepcopy=False):
            if each.state.name != "WAITING":
                seconds = each.duration.total_seconds() if each.duration else None
                values = {k: json.loads(v) if isinstance(v, str) else v for k, v in each.params.items()}
                path = str(folder_of(Path(), each.number) / "run")
                measure = {self.sweep.metric: each.value if each.state.name == "COMPLETE" else None}
                row = {"trial": each.number, "state": each.state.name.lower(), "values": values}
                rows.append(row | measure | {"seconds": seconds, "run": path})
        return rows

    def states(self) -> dict[str, str]:
        return {f"trial {row['trial']}, {_told(row['values'])}": row["state"] for row in self.rows()}

    def table(self, most: int | None = None) -> Table:
        """The trials; with ``most``, only the last so many."""
        rows = self.rows()
        done = sum(row["state"] != "running" for row in rows)
        caption = f"{done} of {self.count} trials ended; {self.sweep.metric}: {self.sweep.goal}"
        table = Table(title=self.sweep.path.stem, caption=caption)
        short = [name.rpartition(".")[2] if "." in name else name for name in self.sweep.parameters]
        for column in ("trial", "state", *short, self.sweep.metric, "seconds"):
            table.add_column(column)
        for row in rows[-most:] if most else rows:
            value, seconds = row[self.sweep.metric], row["seconds"]
            cells = [str(row["values"].get(name, "")) for name in self.sweep.parameters]
            shown = ["" if value is None else f"{value:.2f}", "" if seconds is None else f"{seconds:.0f}"]
            table.add_row(str(row["trial"]), row["state"], *cells, *shown)
        return table

    def _write(self) -> None:
        write_text(self.directory / "trials.json", json.dumps(self.rows(), indent=1) + "\n")


def _told(values: dict[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in values.items())
