"""The plan of what a config asks for: its model, its data and its Trainer's settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vlsafe.data.datamodule import ConversationData
from vlsafe.errors import ConfigError, DataError
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.module import SafetyFineTuning
from vlsafe.planning.estimate import Estimate, Run, estimated
from vlsafe.planning.memory import Machine
from vlsafe.planning.shape import Shape
from vlsafe.planning.workload import Answers, Workload, assumed, sampled


def planned_run(
    model: SafetyFineTuning,
    data: ConversationData,
    asked: Any,
    devices: int,
    machine: Machine,
    answers: Answers | None = None,
    tokens: int | None = None,
    samples: int | None = None,
) -> Estimate:
    """The plan of a config. Raises DataError where its data cannot be read and nothing is said in their place.

    Args:
        asked: the ``trainer`` section as written.
        answers: of the evaluations before and after.
        devices: how many the config means; with its batch size and accumulation they make its global batch.
        tokens, samples: lengths and number of samples, in place of the data.
    """
    precision = str(asked.precision or "32-true")
    shape = Shape(model, precision)
    sharded = Shape(model, precision, sharded=True) if shape.autocast is not None and machine.gpus > 1 else shape
    workload = replace(_workload(data, model.backbone, tokens, samples), answers=answers)
    run = Run(
        precision=precision,
        global_batch=workload.rows * asked.accumulate_grad_batches * devices,
        max_epochs=asked.max_epochs,
        max_steps=asked.max_steps,
        limit=1.0 if asked.limit_train_batches is None else asked.limit_train_batches,
    )
    return estimated(shape, sharded, workload, run, machine)


def _workload(data: ConversationData, backbone: Backbone, tokens: int | None, samples: int | None) -> Workload:
    if tokens is None:
        try:
            return sampled(data, backbone)
        except DataError as error:
            hint = "to plan without the data, say what they are like: --tokens MEAN --samples NUMBER"
            raise DataError([*error.problems, hint]) from error
    number = samples or data.samples
    if tokens < 1 or number is None or number < 1:
        raise ConfigError("--tokens stands in place of the data; give it and --samples, both at least 1")
    return assumed(data, backbone, tokens, number)


def devices_of(asked: Any) -> int:
    """GPUs of the config; what it leaves to the machine (``auto``, -1) counts as one a node."""
    devices = asked.devices
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    number = len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) and devices > 0 else 1
    return number * asked.num_nodes
