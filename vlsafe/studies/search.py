"""Which parameters come next, and which trial is given up: Optuna, with its journal as the study's memory.

The journal is one file that several processes on several machines may write to (a shared file system will do).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlsafe.errors import ConfigError
from vlsafe.studies.sweep_file import Parameter, SweepFile, Values

if TYPE_CHECKING:
    import optuna


def open_search(sweep: SweepFile, directory: Path, seed: int = 0) -> optuna.Study:
    """The study kept in ``directory/journal.log``; made, with a grid's trials waiting in it, where there is none.

    Raises ConfigError when Optuna is not installed.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError as error:
        raise ConfigError("a sweep without a server needs Optuna: pip install 'vlsafe[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = directory / "journal.log"
    fresh = not journal.exists()
    storage = optuna.storages.JournalStorage(
        JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
    )
    early = sweep.early
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if early is not None:  # asynchronous halving with one bracket, which is what W&B's hyperband does
        pruner = optuna.pruners.SuccessiveHalvingPruner(early["min_iter"], early["eta"], 0)
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)
    if sweep.method == "bayes":
        # Trials that still run count as bad ones, so that workers do not all try the same place.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        study_name=sweep.path.stem,
        direction=sweep.goal,
        load_if_exists=True,
    )
    if fresh and sweep.method == "grid":
        for values in sweep.grid():
            study.enqueue_trial({name: _coded(sweep.parameters[name], value) for name, value in values.items()})
    return study


def values_of(trial: optuna.Trial, sweep: SweepFile) -> Values:
    """The trial's parameters as the command gets them; asked again, the same ones."""
    return {name: _asked(trial, name, parameter) for name, parameter in sweep.parameters.items()}


def _asked(trial: optuna.Trial, name: str, parameter: Parameter) -> Any:
    if parameter.values:
        texts = [_coded(parameter, value) for value in parameter.values]
        return json.loads(trial.suggest_categorical(name, texts))
    assert parameter.low is not None and parameter.high is not None
    if parameter.whole:
        return trial.suggest_int(name, int(parameter.low), int(parameter.high))
    return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _coded(parameter: Parameter, value: Any) -> Any:
    """Choices are kept as JSON, since a list or a mapping is no choice for Optuna."""
    return json.dumps(value) if parameter.values else value
