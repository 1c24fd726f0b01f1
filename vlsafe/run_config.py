"""The configuration of a run as it is kept: resolved, without secrets and without options of the call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer import Trainer

from vlsafe.errors import ConfigError
from vlsafe.studies.runs import flat

_SECRET = re.compile(r"(token|secret|password|api_?key)$", re.IGNORECASE)
_OF_THE_CALL = ("ckpt_path", "resume", "resume_changed", "weights_only", "verbose", "return_predictions")
"""Options of one call of a verb, no part of what defines the run."""


class RunConfig(SaveConfigCallback):
    """Keeps the resolved configuration in the run directory, with secrets left out."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        directory = Path(self.config.run_dir)
        directory.mkdir(parents=True, exist_ok=True)
        name = "config.yaml" if stage == "fit" else f"config.{stage}.yaml"
        config = without_secrets(self.config)
        for key in _OF_THE_CALL:
            config.pop(key, None)
        text = self.parser.dump(config, skip_none=False)
        (directory / name).write_text(text, encoding="utf-8")
        settings = dict(flat(yaml.safe_load(text)))
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # a tracker's page shows the settings, by the names that flags have
                logger.log_hyperparams(settings)


def refuse_none_strings(config: Namespace) -> None:
    """A sweep writes null as the text ``None``; for an optional text that would be taken as a name (pitfalls M1)."""
    bad = [key for key, value in config.items(branches=False) if value == "None"]
    if bad:
        raise ConfigError([f"{key} is the text 'None'; write null for no value, or leave the key out" for key in bad])


def without_secrets(config: Namespace) -> Namespace:
    """A copy in which values of keys such as ``api_key`` are replaced."""
    copy = config.clone()
    for key, value in list(copy.items(branches=False)):
        if _SECRET.search(key.rsplit(".", 1)[-1]) and value:
            copy[key] = "(left out)"
    return copy
