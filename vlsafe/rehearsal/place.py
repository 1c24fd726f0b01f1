"""Where the rehearsal trains and how long: this machine's devices, two optimizer steps, its own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlsafe.errors import ConfigError
from vlsafe.rehearsal.draft import Draft, classes, texts_changed
from vlsafe.strategies.attention import check_precision_of

STEPS = 2
_FEW = "a rehearsal is short"
_SERVERS = ("CometLogger", "NeptuneLogger", "MLFlowLogger")
"""Loggers that reach a server when they are made."""


def gpus_here() -> int:
    """Counted without starting CUDA, which a process that is forked later could not use any more."""
    return torch.cuda.device_count()


def settle(draft: Draft, folder: Path) -> int:
    """Put the run into ``folder`` and on this machine, two optimizer steps long; the number of its processes."""
    draft.phase = "parse"
    _run_directory(draft, folder / "run")
    _callbacks_and_loggers(draft, folder / "run")
    draft.phase = "load"
    processes = _devices(draft)
    draft.phase = "two optimizer steps"
    _steps(draft)
    return processes


def _run_directory(draft: Draft, run: Path) -> None:
    asked = draft.content["run_dir"]

    def moved(text: str) -> str:
        return str(run) + text.removeprefix(asked) if text == asked or text.startswith(f"{asked}/") else text

    for part in ("trainer", "run_dir"):
        draft.content[part] = texts_changed(draft.content[part], moved)
    draft.tell(f"run_dir {asked}", "a folder of the rehearsal's own", "the config's own is never touched")
    draft.put("trainer.default_root_dir", None)


def _devices(draft: Draft) -> int:
    asked = _asked(draft.get("trainer.devices", "auto")) * draft.get("trainer.num_nodes", 1)
    on_gpu = draft.get("trainer.accelerator") in ("gpu", "cuda", "auto") and gpus_here() > 0
    processes = min(asked, 2, gpus_here() if on_gpu else 2)
    here = _device(processes, "GPU") if on_gpu else f"{processes} CPU process{'es over gloo' if processes > 1 else ''}"
    wanted = draft.get("trainer.accelerator", "auto")
    if processes != asked or not (on_gpu or wanted == "cpu"):
        nodes = draft.get("trainer.num_nodes", 1)
        where = f" on {nodes} nodes" if nodes > 1 else ""
        kind = {"gpu": "GPU", "cuda": "GPU", "cpu": "CPU process"}.get(wanted, "device")
        draft.tell(_device(asked, kind) + where, here, "what is here, two at most")
    if not on_gpu:
        _on_cpu(draft)
    _replicas(draft, asked, processes)
    draft.put("trainer.devices", processes)
    draft.put("trainer.num_nodes", 1)
    return processes


def _device(number: int, kind: str) -> str:
    return f"{number} {kind}{('es' if kind.endswith('s') else 's') if number > 1 else ''}"


def _asked(devices: Any) -> int:
    """``auto`` and -1 count as one."""
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    return len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) and devices > 0 else 1


def _on_cpu(draft: Draft) -> None:
    draft.put("trainer.accelerator", "cpu")
    for what in ("GPU kernels (flash-attn, fused ones)", "NCCL", "GPU memory and speed (see `vlsafe plan`)"):
        draft.leave_out(what)
    _attention_on_cpu(draft)
    if draft.get("model.init_args.compile"):
        draft.put("model.init_args.compile", False, "minutes of compiling, and other code than on a GPU")
        draft.leave_out("torch.compile")
    for name, component in draft.get("model.init_args.components", {}).items():
        if isinstance(component, dict) and component.get("train") == "qlora" and not _sharded(draft):
            draft.put(f"model.init_args.components.{name}.train", "lora", "4-bit weights need a GPU")
            draft.leave_out("weights in 4 bits (qlora)")


def _attention_on_cpu(draft: Draft) -> None:
    """Raises ConfigError where the kernel that is asked for would not run on a GPU either."""
    backbone = "model.init_args.backbone.init_args"
    asked = str(draft.get(f"{backbone}.attention"))
    if asked.startswith("flash"):
        computes = draft.get("trainer.strategy.init_args.compute") or draft.get("trainer.precision", "32-true")
        check_precision_of(asked, str(computes), draft.get(f"{backbone}.dtype", "float32"))
        draft.put(f"{backbone}.attention", "auto", "its kernel needs a GPU")


def _sharded(draft: Draft) -> bool:
    """4-bit weights are then refused, with a GPU or without one: they are left for `fit` to see."""
    strategy = draft.get("trainer.strategy")
    return strategy in ("fsdp", "fsdp2", "hsdp") or _class_of(strategy) == "FSDP2"


def _class_of(value: Any) -> str:
    return str(value["class_path"]).rpartition(".")[2] if isinstance(value, dict) else ""


def _replicas(draft: Draft, asked: int, processes: int) -> None:
    """As many copies of the sharded model as the processes here allow. Raises ConfigError where they do not divide the
    devices that are asked for."""
    strategy, nodes = draft.get("trainer.strategy"), draft.get("trainer.num_nodes", 1)
    if strategy == "hsdp" and nodes > 1 and processes > 1:
        replicated = {"class_path": "vlsafe.strategies.fsdp2.FSDP2", "init_args": {"replicas": processes}}
        draft.put("trainer.strategy", replicated)
        draft.tell("strategy hsdp, a replica a node", f"{processes} replicas of one process each", "one node is here")
    if _class_of(strategy) != "FSDP2":
        return
    place = "trainer.strategy.init_args.replicas"
    given = draft.get(place, 1)
    copies = nodes if given == "nodes" else given
    if draft.get("trainer.devices", "auto") not in ("auto", -1, "-1") and (copies < 1 or asked % copies):
        raise ConfigError(
            f"trainer.strategy: {copies} replicas do not divide {asked} processes; choose a divisor, or 'nodes'"
        )
    if copies > 1:
        draft.put(place, min(copies, processes), "what is here, two at most")


def _steps(draft: Draft) -> None:
    """Two optimizer steps, then validation where the config has some, a checkpoint after each step."""
    accumulate = min(draft.get("trainer.accumulate_grad_batches", 1), 2)
    draft.put("trainer.accumulate_grad_batches", accumulate, _FEW)
    for key, value in (
        ("max_steps", STEPS), ("max_epochs", STEPS), ("min_steps", None), ("min_epochs", None), ("max_time", None),
        ("limit_train_batches", STEPS * accumulate), ("check_val_every_n_epoch", 1), ("val_check_interval", None),
        ("fast_dev_run", False), ("overfit_batches", 0.0), ("log_every_n_steps", 1),
    ):  # fmt: skip
        draft.put(f"trainer.{key}", value)
    if draft.get("trainer.limit_val_batches", 1.0) != 0:
        draft.put("trainer.limit_val_batches", 2)
    draft.put("checkpoints.every", 1)
    draft.put("data.init_args.batch_size", min(draft.get("data.init_args.batch_size", 8), 4), _FEW)
    draft.put("data.init_args.num_workers", min(draft.get("data.init_args.num_workers", 0), 1), _FEW)
    draft.tell("the whole training", f"{STEPS} optimizer steps, a checkpoint after the first", _FEW)


def _callbacks_and_loggers(draft: Draft, run: Path) -> None:
    callbacks = draft.get("trainer.callbacks", [])
    for each in classes(callbacks):
        arguments = each.setdefault("init_args", {})
        for key in ("every_n_steps", "every_n_train_steps"):
            if isinstance(arguments.get(key), int) and arguments[key] > 1:
                draft.tell(f"{each['class_path'].rpartition('.')[2]}.{key} {arguments[key]}", "1", _FEW)
                arguments[key] = 1
    loggers = draft.get("trainer.logger")
    if not isinstance(loggers, dict | list):
        return
    kept = []
    for each in loggers if isinstance(loggers, list) else [loggers]:
        name = each["class_path"].rpartition(".")[2]
        if name in _SERVERS:
            draft.leave_out(f"{name}, which needs its server")
            continue
        each.setdefault("init_args", {})["save_dir"] = str(run)
        if name == "WandbLogger":
            each["init_args"]["offline"] = True
            draft.tell("W&B's server", "an offline run in the rehearsal's folder", "nothing leaves this machine")
        kept.append(each)
    draft.put("trainer.logger", kept)
