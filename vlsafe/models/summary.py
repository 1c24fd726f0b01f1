"""What trains, counted and printed; and the optimizer's groups."""

from __future__ import annotations

from typing import Any

import torch
from rich.table import Table as RichTable
from torch import nn

from vlsafe.models.adaptation import Plan, component_of
from vlsafe.models.backbones.base import Component
from vlsafe.models.components import Components, Tuning


def summary(model: nn.Module, plan: Plan, components: Components) -> list[dict[str, Any]]:
    """One row a component: parameters of the original model, trainable parameters, learning rate, and the types in
    which they train (``dtype``) and in which the rest is kept (``frozen_dtype``)."""
    rows: dict[Component, dict[str, Any]] = {
        component: {
            "component": component,
            "train": tuning.train,
            "learning_rate": tuning.learning_rate,
            "weight_decay": tuning.weight_decay,
            "parameters": 0,
            "trainable": 0,
            "dtype": "",
            "frozen_dtype": "",
            "note": _note(component, tuning, plan),
        }
        for component, tuning in components.items()
    }
    for name, parameter in model.named_parameters():
        row = rows[component_of(name, plan.owner)]
        if "lora_" not in name and ".modules_to_save." not in name:
            row["parameters"] += parameter.numel()
        if parameter.requires_grad:
            row["trainable"] += parameter.numel()
        if ".original_module." not in name:  # what PEFT keeps of a module that trains
            kind = "dtype" if parameter.requires_grad else "frozen_dtype"
            dtype = str(parameter.dtype).removeprefix("torch.")
            row[kind] = ", ".join(sorted({*filter(None, row[kind].split(", ")), dtype}))
    return list(rows.values())


def _note(component: Component, tuning: Tuning, plan: Plan) -> str:
    notes = []
    if tuning.adapts:
        notes.append(f"rank {tuning.rank}, alpha {tuning.alpha}")
        notes += [name for name in ("rslora", "dora") if getattr(tuning, name)]
    if tuning.train == "qlora":
        notes.append("weights in 4 bits")
    if tuning.last_layers is not None:
        notes.append(f"last {tuning.last_layers} layers")
    if component == "language":
        notes.append(plan.words)
    return ", ".join(notes)


def summary_table(rows: list[dict[str, Any]]) -> RichTable:
    notes = "\n".join(f"{row['component']}: {row['note']}" for row in rows if row["note"])
    table = RichTable(title="what trains", caption=notes, caption_justify="left")
    numbers = ("rate", "decay", "parameters", "trainable")
    for column in ("component", "train", *numbers, "in"):
        table.add_column(column, justify="right" if column in numbers else "left")
    for row in rows:
        rate, decay = (_number(row[name]) for name in ("learning_rate", "weight_decay"))
        counts = (f"{row['parameters']:,}", f"{row['trainable']:,}")
        table.add_row(row["component"], row["train"], rate, decay, *counts, _types(row))
    return table


def _types(row: dict[str, Any]) -> str:
    """``fp32, rest bf16`` of adapters over weights in bfloat16."""
    trained, rest = (_short(row[name]) for name in ("dtype", "frozen_dtype"))
    return f"{trained}, rest {rest}" if trained and rest and trained != rest else trained or rest


def _short(types: str) -> str:
    return types.replace("bfloat", "bf").replace("float", "fp")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def parameter_groups(model: nn.Module, plan: Plan, components: Components, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups, one a trained component, each with its learning rate, its weight decay and its name.

    ``weight_decay`` is that of components which have none of their own. Where there is any, biases and norms, which
    have one dimension, are a group beside their component's without it, as in LLaVA's and MiniGPT-v2's optimizers.
    """
    tuning = dict(components.items())
    decay = {c: weight_decay if t.weight_decay is None else t.weight_decay for c, t in tuning.items()}
    groups: dict[tuple[Component, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            component = component_of(name, plan.owner)
            apart = parameter.ndim < 2 and decay[component] > 0
            groups.setdefault((component, apart), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": tuning[component].learning_rate,
            "weight_decay": 0.0 if apart else decay[component],
            "name": f"{component} without decay" if apart else component,
        }
        for (component, apart), parameters in groups.items()
    ]
