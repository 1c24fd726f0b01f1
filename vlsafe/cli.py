"""The Lightning verbs: fit, validate, test, predict. The typed signatures are the flags are the YAML."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf.errors import OmegaConfBaseException
from transformers.utils.logging import disable_progress_bar

from vlsafe.account import Account
from vlsafe.checkpointing import AtomicCheckpointIO
from vlsafe.cli_errors import REFUSALS, readable, refused, told_by_us
from vlsafe.data.datamodule import ConversationData
from vlsafe.errors import ConfigError, together
from vlsafe.fetch.paths import use_cache
from vlsafe.interpolation import register
from vlsafe.models.loading import check_precision, check_strategy
from vlsafe.models.module import SafetyFineTuning
from vlsafe.planning.choosing import chosen_strategy, machine_here
from vlsafe.planning.workload import Answers
from vlsafe.resuming import CheckpointPlan, RunIdentity, checkpoint_to_resume, to_the_end
from vlsafe.run import EvaluationPlan, RunRecorder
from vlsafe.run_config import RunConfig, refuse_none_strings, without_secrets
from vlsafe.run_metrics import set_metrics_aside
from vlsafe.stopping import signals_stay_ours
from vlsafe.strategies import STRATEGIES
from vlsafe.strategies.waiting import StepWatch

_PARSER: dict[str, Any] = {
    "parser_mode": "omegaconf+",
    "allow_abbrev": False,
    "exit_on_error": False,
    "prog": "vlsafe",
}
_READS_WRITES = {
    "fit": "Reads a config (--config, several are laid over each other). Writes the run directory: config.yaml, "
    "metrics.csv, checkpoints/, adapter/, model/, evaluation/before and after, report.json, report.html.",
    "validate": "Reads a config and a checkpoint (--ckpt_path). Writes the loss on data.validation to standard output.",
    "test": "Reads a config and a checkpoint (--ckpt_path). Writes the loss on data.validation to standard output, and "
    "the evaluation's files into evaluation/test of the run directory.",
    "predict": "Reads a config, a checkpoint (--ckpt_path) and data.prompts. Writes predictions.jsonl into the run "
    "directory.",
}


class VlsafeCLI(LightningCLI):
    """LightningCLI with a run directory, an evaluation plan and a cache directory beside model, data and trainer."""

    def __init__(self, *args: Any, verb: str | None, account: Account | None = None, **kwargs: Any) -> None:
        self._verb = verb
        self._account = account or Account("imports")
        self._account.enter("configuration")
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:
        """The verb that was asked for: the parsers of all four would take a second of every start."""
        return {verb: skipped for verb, skipped in LightningCLI.subcommands().items() if verb == self._verb}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run_dir", type=str, default="runs/vlsafe", help="where everything of this run is kept")
        parser.add_argument(
            "--cache_dir", type=str | None, default=None, help="where `fetch` put what `cache:` paths name"
        )
        parser.add_class_arguments(EvaluationPlan, "evaluation")
        parser.add_class_arguments(CheckpointPlan, "checkpoints")
        parser.add_argument(
            "--resume",
            type=Literal["auto"] | None,
            default=None,
            help="of `fit`: auto goes on from the newest whole checkpoint of run_dir, or starts where there is none",
        )
        parser.add_argument(
            "--resume_changed", type=bool, default=False, help="go on although config or data differ, saying which"
        )

    def before_instantiate_classes(self) -> None:
        config = self.config.get(str(self.subcommand), self.config)
        use_cache(None if config.cache_dir is None else Path(config.cache_dir))
        refuse_none_strings(config)
        if self.subcommand is not None and config.weights_only is None:
            config.weights_only = True  # no pickled code from a checkpoint, unless the user asks for it
        if self.subcommand == "fit" and config.resume == "auto":
            if config.ckpt_path:
                raise ConfigError("--resume auto finds the checkpoint itself; leave --ckpt_path out, or --resume")
            found = checkpoint_to_resume(Path(config.run_dir) / "checkpoints")
            config.ckpt_path = None if found is None else str(found)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would read all of a checkpoint for hyper-parameters, and ours have none."""

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(self._instance, object)  # after Lightning's own, which are for model and data

    def _instance(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        """What the config names, built. What others' classes say of wrong arguments is told with its key."""
        try:
            return class_type(*args, **kwargs)
        except REFUSALS as error:
            config = self.config.get(str(self.subcommand), self.config)
            raise told_by_us(error) or refused(error, class_type, kwargs, config) from error

    def instantiate_classes(self) -> None:
        """Build trainer, model and data. Where one is wrong, the others are built too, so that all is told at once."""
        try:
            super().instantiate_classes()
        except Exception as error:
            if told_by_us(error) is None:
                raise
            together(*(partial(self._part, name) for name in ("model", "data", "evaluation")))
            raise

    def _part(self, name: str) -> None:
        try:
            self._parser(self.subcommand).instantiate(Namespace({name: self._get(self.config, name)}))
        except Exception as error:
            raise told_by_us(error) or error from None

    def before_fit(self) -> None:
        """What can be seen without weights is seen before they load."""
        self._account.enter("open data")
        together(
            partial(check_strategy, self.trainer.strategy, self.model.components),
            partial(check_precision, self._precision(), self.model.backbone),
            self.datamodule.open,
            self._get(self.config_init, "evaluation").check,
        )

    def _precision(self) -> str:
        """The Trainer's; but on a CPU Lightning computes in bfloat16 where float16 was asked for."""
        asked = str(self._get(self.config_init, "trainer.precision"))
        return "16-mixed" if asked in ("16", "16-mixed") else str(self.trainer.precision)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        run_dir = Path(self._get(self.config_init, "run_dir"))
        mine = list(config.get("callbacks") or [])
        if not any(isinstance(callback, ModelCheckpoint) for callback in mine):
            mine.append(self._get(self.config_init, "checkpoints").callback(run_dir / "checkpoints"))
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in mine):
            mine.append(RichProgressBar())
        resumed = self._get(self.config_init, "ckpt_path")
        mine.append(
            RunIdentity(
                self._flat_config(),
                Path(resumed) if resumed else None,
                self._get(self.config_init, "resume_changed"),
                newest=self._get(self.config_init, "resume") == "auto",
            )
        )
        recorder = RunRecorder(run_dir, self._get(self.config_init, "evaluation"), self._account)
        mine = [recorder.steps, *mine, StepWatch(), recorder]
        if resumed:
            rank_zero_only(set_metrics_aside)(run_dir)
        # metrics.csv is always written: the report's curves come from it
        loggers = config.get("logger") or []
        loggers = [] if loggers is True else loggers if isinstance(loggers, list) else [loggers]
        csv = CSVLogger(run_dir, name="", version="", flush_logs_every_n_steps=10)
        config |= {
            "callbacks": mine,
            "logger": [csv, *loggers],
            "default_root_dir": str(run_dir),
            "plugins": [AtomicCheckpointIO(), *(config.get("plugins") or [])],
            "strategy": self._strategy(config),
            "enable_model_summary": False,  # the component table says more
            "use_distributed_sampler": False,  # the Mixture already gives each rank its own samples
            "inference_mode": False,  # a sharded weight first gathered in it could not be trained afterwards
        }
        try:
            trainer = super()._instantiate_trainer(config, callbacks)
        except REFUSALS as error:
            raise told_by_us(error) or ConfigError(f"trainer: {error}") from error
        signals_stay_ours(trainer)
        to_the_end(trainer)
        return trainer

    def _strategy(self, config: dict[str, Any]) -> Any:
        """Our strategies by name; any other is left to Lightning. What ``auto`` is depends on what ``fit`` needs."""
        name = config["strategy"]
        if name == "auto" and self.subcommand == "fit":
            asked = self._get(self.config, "trainer")
            return chosen_strategy(self.model, self.datamodule, asked, machine_here(asked), self.answers)
        if isinstance(name, str) and name in STRATEGIES:
            return STRATEGIES[name]()
        if isinstance(name, FSDPStrategy) or name in FSDPStrategy.get_registered_strategies():
            raise ConfigError(
                "trainer.strategy: what Lightning's own FSDP spreads over processes cannot be evaluated or exported "
                "here; take fsdp2"
            )
        return name

    @property
    def answers(self) -> Answers | None:
        """What the plan must know of the evaluations before and after; None where there are none."""
        plan = self._get(self.config_init, "evaluation")
        return Answers(plan.batch_size, plan.decoding.max_new_tokens) if plan.benchmarks else None

    def _flat_config(self) -> dict[str, Any]:
        """Dotted key -> value of the run's config, without secrets."""
        config = without_secrets(self.config.get(str(self.subcommand), self.config))
        return dict(config.items(branches=False))


def main(argv: list[str]) -> int:
    """``argv``: the verb and what follows it. Raises as :func:`built`."""
    built(argv, run=True)
    return 0


def built(argv: list[str], run: bool = False, account: Account | None = None) -> VlsafeCLI:
    """Parse ``argv`` and build model, data and trainer; with ``run``, ``argv`` begins with the verb and it is run.

    ``account`` is told of the run's phases, in the place of one of its own.

    Raises:
        ConfigError: unknown keys, wrong values, impossible combinations, before any weight is loaded.
    """
    return _made(VlsafeCLI, argv, argv[0] if run else None, account)


def parsed(argv: list[str]) -> VlsafeCLI:
    """Parse ``argv`` and build nothing: its ``config`` is what the files and flags say together. Raises ConfigError."""
    return _made(_Parsed, argv, None, None)


class _Parsed(VlsafeCLI):
    def before_instantiate_classes(self) -> None:
        refuse_none_strings(self.config)

    def instantiate_classes(self) -> None:
        pass


def _made(kind: type[VlsafeCLI], argv: list[str], verb: str | None, account: Account | None) -> VlsafeCLI:
    sys.path.insert(0, os.getcwd())  # class paths of the user's own modules
    quieten()
    register()
    try:
        return kind(
            SafetyFineTuning,
            ConversationData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
            parser_kwargs=_PARSER
            if verb is None
            else {
                **_PARSER,
                verb: {**_PARSER, "description": _READS_WRITES[verb]},
            },
            args=argv,
            run=verb is not None,
            verb=verb,
            account=account,
        )
    except Exception as error:
        ours = told_by_us(error)
        if ours is not None:
            raise ours from None
        if isinstance(error, ArgumentError | OmegaConfBaseException):
            raise ConfigError(readable(str(error))) from error
        raise


def quieten() -> None:
    """Words of our dependencies that a user of vlsafe can do nothing about."""
    for text in (
        "LightningCLI's args parameter",
        ".*does not have many workers.*",
        ".*module\\(s\\) in eval mode at the start of training.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Total length of `list` across ranks is zero.*",
        ".*is_gradient_checkpointing.*",
    ):
        warnings.filterwarnings("ignore", text)
    disable_progress_bar()  # transformers' bar for every file it loads
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
