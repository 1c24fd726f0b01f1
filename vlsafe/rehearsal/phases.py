"""One rehearsal from parsing to the report, phase by phase."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from vlsafe.checkpointing import newest_whole
from vlsafe.cli import parsed
from vlsafe.errors import VlsafeError
from vlsafe.fetch.paths import use_cache
from vlsafe.rehearsal import journal
from vlsafe.rehearsal.assembled import base_of, small_adapter
from vlsafe.rehearsal.backbones import shrink
from vlsafe.rehearsal.data import supply
from vlsafe.rehearsal.draft import Change, Draft
from vlsafe.rehearsal.place import STEPS, settle
from vlsafe.rehearsal.reloader import Reloader
from vlsafe.rehearsal.training import Ended, last_words, trained

PHASES = (
    "parse", "open data", "load", "evaluate before", "two optimizer steps", "checkpoint", "kill and resume", "export",
    "evaluate after", "report", "reload",
)  # fmt: skip
_OF_THE_RUN = {
    "imports": "parse", "configuration": "parse", "open data": "open data", "load": "load",
    "evaluate before": "evaluate before", "start of training": "two optimizer steps", "train": "two optimizer steps",
}  # fmt: skip
"""Phase of a run's account -> the phase here, in the training that is killed."""
_OF_THE_END = {"export": "export", "evaluate after": "evaluate after", "report": "report"}
"""In the training that goes on; everything before is part of resuming."""

State = Literal["passed", "failed", "not reached", "nothing to do"]


@dataclass(slots=True)
class Phase:
    name: str
    state: State = "not reached"
    seconds: float = 0.0
    note: str = ""


@dataclass(slots=True)
class Result:
    """What came of a rehearsal. ``status`` is the exit status: 0 where every phase passed."""

    name: str
    phases: list[Phase] = field(default_factory=lambda: [Phase(name) for name in PHASES])
    changes: list[Change] = field(default_factory=list)
    not_rehearsed: list[str] = field(default_factory=list)
    status: int = 0

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)

    def failed(self, name: str, error: str, status: int) -> None:
        phase = self.phase(name)
        phase.state, phase.note, self.status = "failed", error, status

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Result:
        told = json.loads(path.read_text(encoding="utf-8"))
        told["phases"] = [Phase(**phase) for phase in told["phases"]]
        told["changes"] = [Change(**change) for change in told["changes"]]
        return cls(**told)


class Rehearsal:
    """One run, from its configs to its exported model in ``folder/run/model``.

    Args:
        name: of the run, for people.
        argv: its configs and flags, as ``fit`` takes them.
        folder: gets everything of the rehearsal.
        exported: checkpoint as a config may name it -> the model that an earlier rehearsal has exported.
        reloader: the process that loads exports without vlsafe.
    """

    def __init__(
        self, name: str, argv: list[str], folder: Path, exported: Mapping[str, Path], reloader: Reloader
    ) -> None:
        self.argv = argv
        self.folder = folder
        self.exported = exported
        self.reloader = reloader
        self.result = Result(name)
        self.draft = Draft({})
        self.processes = 1
        self._at = "parse"

    def run(self) -> Result:
        torch.set_num_threads(1)
        with self._told():
            self._prepare()
            self._train_and_resume()
            self._reload()
        return self.result

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong outside of the run itself ends the rehearsal in the phase that was entered last."""
        try:
            yield
        except _Stopped:
            pass
        except VlsafeError as error:
            self.result.failed(self._at, str(error), error.exit_status)
        except Exception as error:
            self.result.failed(self._at, last_words(error), 1)
        self.result.changes = self.draft.changes
        self.result.not_rehearsed = self.draft.not_rehearsed

    def _prepare(self) -> None:
        began = time.monotonic()
        cli = parsed(self.argv)
        content = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
        self.draft.content = content
        use_cache(None if content["cache_dir"] is None else Path(content["cache_dir"]))
        self.processes = settle(self.draft, self.folder)
        supply(self.draft, self.folder / "data")
        shrink(self.draft, self.folder / "toy", self.exported)
        small_adapter(self.draft, self.folder / "toy")
        self._passed("parse", time.monotonic() - began)

    def _fit(self, name: str, kill_at: int | None, *flags: str) -> Ended:
        content = dict(self.draft.content)
        arguments = {"path": str(self.folder / f"{name}.steps"), "kill_at": kill_at}
        kept = {"class_path": "vlsafe.rehearsal.journal.Journal", "init_args": arguments}
        callbacks = content["trainer"].get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        content["trainer"] = content["trainer"] | {"callbacks": [*callbacks, kept]}
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return trained(["--config", str(config), *flags], self.folder / name, self.processes)

    # --- training -----------------------------------------------------------------------------------------------------

    def _train_and_resume(self) -> None:
        ended = self._fit("first", STEPS)
        begun = self._began("first")
        seconds = _durations(begun, _OF_THE_RUN)
        for name in PHASES[:5]:
            if name in seconds:
                self._passed(name, self.result.phase(name).seconds + seconds[name])
        if not ended.killed:
            at = _OF_THE_RUN.get(begun[-1]["phase"], "two optimizer steps") if begun else "parse"
            self._stop(at, ended.error or "the run ended before its second optimizer step", ended.status or 1)
        if "evaluate before" not in seconds:
            self.result.phase("evaluate before").state = "nothing to do"
        self._checkpoint()
        self._resume()

    def _checkpoint(self) -> None:
        self._at, began = "checkpoint", time.monotonic()
        found = newest_whole(self.folder / "run" / "checkpoints")
        if found is None or found.name != "step=1.ckpt":
            self._stop("checkpoint", f"after the first step there should be step=1.ckpt, there is {found}", 1)
        self._passed("checkpoint", time.monotonic() - began)

    def _resume(self) -> None:
        self._at = "kill and resume"
        ended = self._fit("second", None, "--resume=auto")
        begun = self._began("second")
        seconds = _durations(begun, _OF_THE_END)
        at = _OF_THE_END.get(begun[-1]["phase"], "kill and resume") if begun else "kill and resume"
        ends = [each["time"] for each in begun if each["phase"] in _OF_THE_END] or [time.time()]
        self.result.phase("kill and resume").seconds = ends[0] - begun[0]["time"] if begun else 0.0
        if ended.error and at == "kill and resume":
            self._stop(at, ended.error, ended.status)
        self._passed("kill and resume", self.result.phase("kill and resume").seconds, self._compared())
        for name in _OF_THE_END.values():
            if name in seconds:
                self._passed(name, seconds[name])
            elif not ended.error:
                self.result.phase(name).state = "nothing to do"
        if ended.error:
            self._stop(at, ended.error, ended.status)

    def _compared(self) -> str:
        """What was shown of the resumed training; raises VlsafeError where it did not go on as it would have."""
        exact = self.draft.get("trainer.accelerator") == "cpu"
        for rank in range(self.processes):
            killed, resumed = (
                {row["step"]: row for row in journal.read(self.folder / f"{name}.steps.{rank}")}
                for name in ("first", "second")
            )
            if list(resumed) != [STEPS]:
                raise VlsafeError(f"the resumed run made the steps {list(resumed)}; it should have made {[STEPS]}")
            one, other = killed[STEPS], resumed[STEPS]
            if one["ids"] != other["ids"]:
                raise VlsafeError(f"the resumed run saw {other['ids']}, the killed one {one['ids']}")
            close = all(abs(a - b) <= 1e-2 * abs(a) for a, b in zip(one["losses"], other["losses"], strict=True))
            if not close or (exact and (one["losses"], one["weights"]) != (other["losses"], other["weights"])):
                raise VlsafeError(
                    f"step {STEPS} of the resumed run differs from the killed one's: losses {other['losses']} and "
                    f"{one['losses']}, weights {'equal' if one['weights'] == other['weights'] else 'differ'}"
                )
        return "same samples and losses, " + ("same weights bit by bit" if exact else "within a hundredth")

    # --- after training -----------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        self._at, began = "reload", time.monotonic()
        run = self.folder / "run"
        backbone = self.draft.get("model.init_args.backbone.init_args")
        base = None
        if (run / "adapter").is_dir():
            composed = "vision_encoder" in backbone
            base = str(base_of(self.draft, self.folder / "toy")) if composed else backbone.get("checkpoint")
        note = self.reloader.note(model=str(run / "model"), adapter=str(run / "adapter"), base=base)
        self._passed("reload", time.monotonic() - began, note)

    # --- what is told -------------------------------------------------------------------------------------------------

    def _began(self, name: str) -> list[dict[str, Any]]:
        return journal.read(self.folder / name / "phases.0")

    def _passed(self, name: str, seconds: float, note: str = "") -> None:
        phase = self.result.phase(name)
        phase.state, phase.seconds, phase.note = "passed", seconds, note

    def _stop(self, name: str, error: str, status: int) -> None:
        self.result.failed(name, error, status)
        raise _Stopped


class _Stopped(Exception):
    """The phase that failed is already told."""


def _durations(begun: list[dict[str, Any]], names: Mapping[str, str]) -> dict[str, float]:
    """Seconds of each phase that was entered, by the names here; of the last one, until now."""
    seconds: dict[str, float] = {}
    for one, following in zip(begun, [*begun[1:], {"time": time.time()}], strict=True):
        if one["phase"] in names:
            name = names[one["phase"]]
            seconds[name] = seconds.get(name, 0.0) + following["time"] - one["time"]
    return seconds
