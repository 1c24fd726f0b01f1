"""``evaluate --config``: what the evaluations inside a run measure, by a command of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from vlsafe.cli import built
from vlsafe.errors import ConfigError
from vlsafe.evaluation.sharing import Processes
from vlsafe.evaluation.stages import evaluate
from vlsafe.export import HERE
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.export import merge
from vlsafe.models.responder import ModelResponder
from vlsafe.run import EvaluationPlan


def measure_as_run(
    config: Path, out: Path, processes: Processes, load: Callable[[], tuple[Backbone, nn.Module]] | None
) -> None:
    """All four stages into ``out``, by the benchmarks, judge and decoding of a run's ``config.yaml``, of what ``load``
    gives; where it is None, of the config's own model before tuning.

    Raises ConfigError where the config measures nothing.
    """
    run = built(["--config", str(config), *HERE])
    plan: EvaluationPlan = run.config_init.evaluation
    if not plan.benchmarks:
        raise ConfigError(f"{config} names no evaluation.benchmarks; give --suite or --benchmarks instead")
    plan.check()
    if load is None:
        run.model.configure_model()
        backbone, model = run.model.backbone, merge(run.model)
        model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    else:
        backbone, model = load()
        backbone.system_prompt = run.model.backbone.system_prompt  # which no folder holds
    responder = ModelResponder(model, backbone, plan.batch_size)
    evaluate(plan.benchmarks, responder, plan.judge, plan.decoding, out, processes)
