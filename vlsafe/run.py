"""What a run leaves behind: evaluation before and after, exported model, report, and a way to go on after Ctrl-C."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from vlsafe.account import Account, divided
from vlsafe.answering import Decoding
from vlsafe.data.datamodule import ConversationData
from vlsafe.environment import describe
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.published import published as published_cells
from vlsafe.evaluation.report import terminal_table, write_report
from vlsafe.evaluation.scoring import check_pictures, check_sides
from vlsafe.measuring import measured
from vlsafe.model_card import model_card, rewrite_cards
from vlsafe.models.export import export_adapter, export_model
from vlsafe.models.module import SafetyFineTuning
from vlsafe.predictions import Predictions
from vlsafe.run_metrics import put_metrics_back
from vlsafe.run_report import final_values, gathered
from vlsafe.step_account import StepAccount
from vlsafe.stopping import STOP, Interrupted, Stopped


class EvaluationPlan:
    """What a run measures, before and after.

    Args:
        benchmarks: what to ask; harm-side ones need a benign-side one beside them. None measures nothing.
        judge: who decides, by name: ``keyword:vlsafe``, ``keyword:vlguard``, ...
        max_new_tokens: length limit of an answer.
        batch_size: prompts answered together.
        published: the paper's row that this run repeats, such as ``llava-7b/post-hoc-lora``; ``study report`` prints
            its cells beside ours.
        separate: measure nothing inside ``fit``, which prints the commands that do, on any number of devices.
    """

    def __init__(
        self,
        benchmarks: list[Benchmark] | None = None,
        judge: str = "keyword:vlsafe",
        max_new_tokens: int = 256,
        batch_size: int = 16,
        published: str | None = None,
        separate: bool = False,
    ) -> None:
        if published is not None:
            published_cells(published)
        self.benchmarks = benchmarks or []
        self.judge = judge_named(judge)
        self.decoding = Decoding(max_new_tokens=max_new_tokens)
        self.batch_size = batch_size
        self.separate = separate

    def check(self) -> None:
        """Read the items and see that both sides are there. Raises DataError or ConfigError, before weights load."""
        if self.benchmarks:
            items = [item for benchmark in self.benchmarks for item in benchmark.items()]
            check_sides(items)
            check_pictures(items)

    def run(self, trainer: L.Trainer, module: SafetyFineTuning, out: Path) -> None:
        """All four stages into ``out``, by all processes; what is there already is not asked again."""
        measured(trainer, module, self.benchmarks, self.judge, self.decoding, self.batch_size, out)


class RunRecorder(Checkpoint):
    """Fills the run directory. It is one of Lightning's Checkpoint callbacks only so that it runs after all others: at
    the end it merges the adapter away, and nothing may want to save a checkpoint after that.
    """

    def __init__(self, directory: Path, plan: EvaluationPlan, account: Account) -> None:
        self.directory = directory
        self.plan = plan
        self.account = account
        self.steps = StepAccount(account)
        self.predictions = Predictions(directory)
        self._stopped = False
        self._first = True

    # --- phases ---------------------------------------------------------------------------------------------------

    def _begin(self, phase: str) -> None:
        if self._first:
            Console(stderr=True).rule(phase, align="left")
        self.account.enter(phase)

    def _seconds(self, data: ConversationData) -> dict[str, float]:
        """By phase until now, training by its parts."""
        return divided(self.account.seconds(), "train", self.steps.parts(data))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage in ("fit", "test"):
            self.plan.check()
        self._first = trainer.is_global_zero
        if self._first:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._record(describe())
        self.account.enter("load")

    def _record(self, environment: dict[str, Any]) -> None:
        content = json.dumps(environment, indent=2) + "\n"
        (self.directory / "environment.json").write_text(content, encoding="utf-8")

    def on_fit_start(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        if self._first and pl_module.backbone.kernels is not None:
            self._record(describe() | {"kernels": asdict(pl_module.backbone.kernels)})
        before = self.directory / "evaluation" / "before"
        if trainer.ckpt_path is None and self.plan.benchmarks and not self.plan.separate:
            self._begin("evaluate before")
            with pl_module.before_tuning():
                self.plan.run(trainer, pl_module, before)
        self.account.enter("start of training")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        STOP.defer()  # until everything trained is in a checkpoint; outside of training, files hold what is done

    def on_train_end(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        if self._stopped:
            raise self._how_to_go_on(trainer, "interrupted.ckpt")
        if trainer.fast_dev_run:
            STOP.deliver()
            return
        self.account.enter("last checkpoint")
        trainer.save_checkpoint(self.directory / "checkpoints" / "last.ckpt", weights_only=False)
        if STOP.agreed(trainer):
            raise self._how_to_go_on(trainer, "last.ckpt")
        STOP.deliver()
        self._export(trainer, pl_module)
        if self.plan.separate:
            self._say_how_to_measure()
        elif self.plan.benchmarks:
            self._begin("evaluate after")
            self.plan.run(trainer, pl_module, self.directory / "evaluation" / "after")
            if self._first:
                self._report(trainer, trainer.datamodule, pl_module)

    def _say_how_to_measure(self) -> None:
        """The evaluation that was left to a command of its own."""
        if self._first and self.plan.benchmarks:
            before, after = (self.directory / "evaluation" / side for side in ("before", "after"))
            evaluate = f"python -m vlsafe evaluate --config {self.directory / 'config.yaml'}"
            print(f"measure before and after with:\n  {evaluate} --out {before}")
            print(f"  {evaluate} --model {self.directory / 'model'} --out {after} --baseline {before}")

    def _export(self, trainer: L.Trainer, module: SafetyFineTuning) -> None:
        """What was trained, as folders that transformers and PEFT load; afterwards all processes hold what is there."""
        data, card, adapter_card = trainer.datamodule, "", ""
        if self._first:
            if trainer.progress_bar_callback is not None:  # its live display would hide the next one
                trainer.progress_bar_callback.teardown(trainer, module, "fit")
            for logger in trainer.loggers:
                logger.save()
            put_metrics_back(self.directory)
        self._begin("export")
        if self._first:
            card = model_card(self.directory, module, data)
            adapter_card = model_card(self.directory, module, data, adapter=True)
        export_adapter(module, self.directory / "adapter", adapter_card)
        export_model(module, self.directory / "model", card)

    def _report(self, trainer: L.Trainer, data: ConversationData, module: SafetyFineTuning) -> None:
        self.account.enter("report")
        report = gathered(self.directory, data, module, lambda: self._seconds(data))
        page = write_report(report, self.directory)
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # metrics.csv is whole by now; report.json holds these
                logger.log_metrics(final_values(report), step=trainer.global_step)
        rewrite_cards(self.directory, module, data)
        Console().print(terminal_table(report))
        print(f"report: {page}")

    # --- test and predict -------------------------------------------------------------------------------------------

    def on_test_start(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        if not self.plan.benchmarks:
            return
        self._begin("evaluate")
        self.plan.run(trainer, pl_module, self.directory / "evaluation" / "test")

    def on_predict_start(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        self.predictions.begin(trainer, pl_module)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: list[str], batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self.predictions.add(batch, outputs)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.predictions.end(trainer)

    # --- stopping when asked ------------------------------------------------------------------------------------------

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.fit_loop._should_accumulate() and STOP.agreed(trainer):
            trainer.save_checkpoint(self.directory / "checkpoints" / "interrupted.ckpt", weights_only=False)
            self._stopped = trainer.should_stop = True  # this step is still logged; on_train_end says how to go on

    def _how_to_go_on(self, trainer: L.Trainer, name: str) -> Interrupted:
        config, checkpoint = self.directory / "config.yaml", self.directory / "checkpoints" / name
        return STOP.error(
            f"stopped at step {trainer.global_step}. Go on with:\n"
            f"  python -m vlsafe fit --config {config} --ckpt_path {checkpoint}"
        )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Stopped) and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(STOP.received)  # the processes that this one has started
