"""A pipeline: stages run one after another, each from an earlier one's model, as processes that survive a kill."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import yaml
from rich.table import Table

from vlsafe.errors import ConfigError, VlsafeError
from vlsafe.evaluation.records import write_text
from vlsafe.studies.board import WAITS, Board
from vlsafe.studies.runs import Run, read_run
from vlsafe.studies.stage_file import Stage
from vlsafe.studies.trials import Running, last_words, launch, locked, stop

_FAILED, _CANNOT = "failed", "cannot begin"


class Pipeline:
    """Brings every stage to its end, in ``directory/<stage>``: ``stage.json``, the config as laid (``stage.yaml``,
    ``start.yaml``), ``command.json``, ``output.log`` and ``run``, the run directory.

    A stage is known by its key: its whole config and the fingerprint of the model that it starts from. One that has
    finished under its key is never run again; one that was killed goes on from its newest checkpoint. Where the key
    has changed, the folder is kept beside it as ``<stage>.<old key>`` and the stage is run anew, and so are those that
    start from it, since its model is another one.

    A stage whose process runs elsewhere, be it left of a killed pipeline or of one on another machine that shares the
    file system, is waited for, and what does not start from it goes on.

    Args:
        stages: in an order in which each follows the one that it starts from.
        directory: the study directory.
        overlays: configs laid over every stage's own.
        workers: stages at a time, each with its share of this machine's cores.
        interval: seconds between two looks at the running processes.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        directory: Path,
        overlays: Sequence[Path] = (),
        workers: int = 1,
        interval: float = 1.0,
    ) -> None:
        self.stages = stages
        self.directory = directory
        self.overlays = tuple(overlays)
        self.workers = workers
        self.interval = interval
        self.states = {stage.name: WAITS for stage in stages}
        self._running: dict[str, tuple[Stage, Running, float]] = {}
        self._steps: dict[str, int] = {}
        self._board = Board(self.table, lambda: self.states)
        self._prints: dict[Path, str] = {}
        self._runs: dict[str, Run] = {}

    def run(self) -> None:
        """Raises ConfigError where a stage's config is wrong, before any is run; VlsafeError naming the stages that
        failed and those that could not begin, after all others have run."""
        with self._board:
            self._check()
            try:
                self._bring_all()
            finally:
                stop([running for _, running, _ in self._running.values()])
        problems = []
        for stage in self.stages:
            folder = self.folder(stage.name)
            if self.states[stage.name] == _CANNOT:
                problems.append(f"stage {stage.name} cannot begin: it starts from {stage.after}")
            elif self.states[stage.name] == _FAILED:
                problems.append(f"stage {stage.name} failed, see {folder}/output.log: {last_words(folder)}")
        if problems:
            raise VlsafeError(problems)

    def _bring_all(self) -> None:
        waiting = [*self.stages]
        while waiting or self._running:
            waiting = [stage for stage in waiting if not self._taken(stage)]
            self._board.show()
            time.sleep(self.interval)
            self._look()

    def folder(self, name: str) -> Path:
        return self.directory / name

    # --- one stage ----------------------------------------------------------------------------------------------------

    def _taken(self, stage: Stage) -> bool:
        """Start the stage if it can be; whether it runs, has ended, or never can begin."""
        start = "finished" if stage.after is None else self.states[stage.after]
        if start in (_FAILED, _CANNOT):
            self.states[stage.name] = _CANNOT
            return True
        if start != "finished" or len(self._running) >= self.workers:
            return False
        folder, key = self.folder(stage.name), self._key(stage)
        lock = locked(folder)
        if lock is not None and (kept := record(folder)).get("key", key) != key:
            folder.rename(folder.with_name(f"{stage.name}.{kept['key'][:8]}"))
            lock.close()
            lock = locked(folder)
        if lock is None:
            self.states[stage.name] = "runs already, in a process that is not of this study run"
            return False
        if finished(folder, key):
            lock.close()
            self._ended(stage, "finished")
        else:
            self._start(stage, key, lock)
        return True

    def _start(self, stage: Stage, key: str, lock: IO[str]) -> None:
        folder = self.folder(stage.name)
        self._write(stage, key, finished=False, seconds=None)
        self._hand_on(stage, folder / "run" / "evaluation" / "before")
        command = [*self.command(stage, folder), f"--run_dir={folder / 'run'}", "--resume=auto"]
        self._running[stage.name] = (stage, launch(command, 0, folder, lock, self.workers), time.monotonic())
        self.states[stage.name] = "runs"

    def _look(self) -> None:
        """Read how far the running stages are; take note of those that have ended."""
        for name, (stage, running, began) in list(self._running.items()):
            step = last_step(running.folder / "run" / "metrics.csv")
            if step is not None:
                self._steps[name] = step
            status = running.process.poll()
            if status is None:
                continue
            del self._running[name]
            if status == 0:
                self._write(stage, self._key(stage), finished=True, seconds=time.monotonic() - began)
            running.lock.close()
            self._ended(stage, _FAILED if status else "finished")

    def _ended(self, stage: Stage, state: str) -> None:
        self.states[stage.name] = state
        report = self.folder(stage.name) / "run" / "report.json"
        if state == "finished" and report.is_file():
            self._runs[stage.name] = replace(read_run(report), label=stage.name)

    def _hand_on(self, stage: Stage, before: Path) -> None:
        """What the model that the stage starts from has answered at its own end is not asked again: every record is
        known by weights, prompt and decoding, and one that does not fit is passed over."""
        if stage.after is None or before.exists():
            return
        after = self.folder(stage.after) / "run" / "evaluation" / "after"
        before.mkdir(parents=True)
        for path in (*after.glob("responses.jsonl"), *after.glob("verdicts.*.jsonl")):
            shutil.copyfile(path, before / path.name)

    def _write(self, stage: Stage, key: str, finished: bool, seconds: float | None) -> None:
        """``seconds`` are those of the last process: what a killed one took is not known."""
        told: dict[str, Any] = {"name": stage.name, "after": stage.after, "file": str(stage.path)}
        told |= {
            "flags": dict(stage.flags),
            "key": key,
            "config": self._key_of_config(stage),
            "finished": finished,
            "seconds": seconds,
        }
        write_text(self.folder(stage.name) / "stage.json", json.dumps(told, indent=1) + "\n")

    def command(self, stage: Stage, folder: Path) -> list[str]:
        """The stage's ``fit``, whose own part and start are written into ``folder`` as they are laid."""
        write_text(folder / "stage.yaml", yaml.safe_dump(dict(stage.content), sort_keys=False))
        configs = [*stage.configs, folder / "stage.yaml", *self.overlays]
        if stage.after is not None:
            started = {"checkpoint": str(self.folder(stage.after) / "run" / "model")}
            backbone = {"class_path": "vlsafe.PretrainedVLLM", "init_args": started}
            write_text(folder / "start.yaml", yaml.safe_dump({"model": {"init_args": {"backbone": backbone}}}))
            configs.append(folder / "start.yaml")
        laid = [f"--config={path}" for path in configs]
        flags = [f"--{name}={value}" for name, value in stage.flags.items()]
        return [sys.executable, "-m", "vlsafe", "fit", *laid, *flags]

    # --- what is known beforehand -------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Every stage file that has something left to run is parsed by ``fit`` first: a wrong key in the last one would
        else be told after hours. The first one to run tells its own."""
        left = {s.path: s for s in reversed(self.stages) if not self._looks_finished(s)}
        stages = [*reversed(left.values())][1:]
        self.states |= {stage.name: "its config is checked" for stage in stages}
        self._board.show()
        with ThreadPoolExecutor(self.workers) as pool:
            problems = [problem for problem in pool.map(self._wrong, stages) if problem]
        self.states |= {stage.name: WAITS for stage in stages}
        if problems:
            raise ConfigError(problems)

    def _wrong(self, stage: Stage) -> str | None:
        with TemporaryDirectory() as folder:
            command = [*self.command(stage, Path(folder)), "--print_config"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"{stage.path}: {done.stderr.strip().removeprefix('error: ')}" if done.returncode else None

    def _looks_finished(self, stage: Stage) -> bool:
        kept = record(self.folder(stage.name))
        return bool(kept.get("finished")) and kept["config"] == self._key_of_config(stage)

    def _key_of_config(self, stage: Stage) -> str:
        return stage.key(self.overlays, None)

    def _key(self, stage: Stage) -> str:
        start = None if stage.after is None else self._fingerprint(self.folder(stage.after) / "run" / "model")
        return stage.key(self.overlays, start)

    def _fingerprint(self, model: Path) -> str:
        if model not in self._prints:
            self._prints[model] = model_fingerprint(model)
        return self._prints[model]

    # --- what is told -------------------------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """The finished stages that were evaluated, read back, in the order of the stages."""
        return [self._runs[stage.name] for stage in self.stages if stage.name in self._runs]

    def rows(self) -> list[dict[str, Any]]:
        """Every stage: its record, its state and, where it was evaluated, rates and the objective in percent."""
        rows = []
        for stage in self.stages:
            row: dict[str, Any] = {"stage": stage.name, "after": stage.after, "flags": dict(stage.flags)}
            row["state"] = self.states[stage.name]
            run = self._runs.get(stage.name)
            if run is not None:
                row |= {"asr": run.asr, "over_refusal": run.over_refusal, "utility": run.utility}
                row |= {"objective": run.objective, "seconds": record(self.folder(stage.name))["seconds"]}
            rows.append(row)
        return rows

    def table(self, most: int | None = None) -> Table:
        """The stages; with ``most``, only the last so many of those that do not wait."""
        rows = self.rows()
        shown = rows if most is None else [row for row in rows if row["state"] != WAITS][-most:]
        table = Table(caption=f"{_done(rows)} of {len(rows)} stages finished; rates in percent, after each stage")
        measured = {"asr": "ASR", "over_refusal": "over-refusal", "utility": "utility", "objective": "objective"}
        for column in ("stage", "after", "with", "state", *measured.values(), "seconds"):
            table.add_column(column)
        for row in shown:
            given = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in row["flags"].items())
            numbers = ["" if row.get(name) is None else f"{row[name]:.1f}" for name in measured]
            seconds = f"{row['seconds']:.0f}" if "seconds" in row else ""
            step = self._steps.get(row["stage"])
            state = f"runs, step {step}" if row["state"] == "runs" and step is not None else row["state"]
            table.add_row(row["stage"], row["after"] or "", given, state, *numbers, seconds)
        return table


def _done(rows: Sequence[dict[str, Any]]) -> int:
    return sum(row["state"] == "finished" for row in rows)


def record(folder: Path) -> dict[str, Any]:
    """``stage.json`` of a stage that has begun, else empty."""
    path = folder / "stage.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def finished(folder: Path, key: str) -> bool:
    kept = record(folder)
    return bool(kept.get("finished")) and kept["key"] == key and (folder / "run" / "model").is_dir()


def model_fingerprint(model: Path) -> str:
    """sha256 over weights, configs and tokenizer of an exported model; its card, which holds a date, is left out."""
    digest = hashlib.sha256()
    for path in sorted([*model.glob("*.safetensors"), *model.glob("*.json")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def last_step(metrics: Path) -> int | None:
    """The newest step that a run has logged."""
    if not metrics.is_file():
        return None
    with metrics.open(newline="", encoding="utf-8") as file:
        steps = [row["step"] for row in csv.DictReader(file) if row.get("step")]
    return int(steps[-1]) if steps else None
