"""One table decides what trains: component -> frozen | full | lora, and its learning rate (pitfalls area B)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from rich.table import Table as RichTable
from torch import nn
from transformers import PreTrainedModel

from vlsafe.errors import ConfigError
from vlsafe.models.backbones.base import COMPONENTS, Backbone, Component

_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Tuning:
    """What happens to one component.

    Args:
        train: ``frozen``, ``full`` or ``lora``.
        learning_rate: peak learning rate; needed unless frozen.
        rank, alpha, dropout: of the LoRA adapters (Hu et al. 2021, arXiv 2106.09685).
        targets: names of the linear layers that get adapters; None takes every linear layer of the component but
            the output head.
    """

    train: Literal["frozen", "full", "lora"] = "frozen"
    learning_rate: float | None = None
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: list[str] | None = None


@dataclass(frozen=True)
class Components:
    """The component table of a run."""

    vision: Tuning = field(default_factory=Tuning)
    projector: Tuning = field(default_factory=Tuning)
    language: Tuning = field(default_factory=Tuning)

    def items(self) -> list[tuple[Component, Tuning]]:
        return [(component, getattr(self, component)) for component in COMPONENTS]

    def check(self) -> None:
        """What is wrong with the table, all at once, before weights load. Raises ConfigError."""
        problems = []
        for component, tuning in self.items():
            where = f"model.components.{component}"
            if tuning.train == "frozen" and tuning.learning_rate is not None:
                problems.append(f"{where} is frozen but has a learning_rate; remove it or set train: full")
            if tuning.train != "frozen" and tuning.learning_rate is None:
                problems.append(f"{where} is trained ({tuning.train}) but has no learning_rate")
            if tuning.learning_rate is not None and tuning.learning_rate <= 0:
                problems.append(f"{where}.learning_rate is {tuning.learning_rate}; freeze the component instead")
            if tuning.train == "lora" and tuning.rank < 1:
                problems.append(f"{where}.rank is {tuning.rank}, must be at least 1")
        if all(tuning.train == "frozen" for _, tuning in self.items()):
            problems.append("model.components freezes every component, so nothing would train")
        if problems:
            raise ConfigError(problems)


def adapt(model: PreTrainedModel, backbone: Backbone, components: Components) -> PreTrainedModel | PeftModel:
    """Freeze, unfreeze and add adapters as the table says; the returned model's trainable set is checked against it.

    A fully trained component beside a LoRA one becomes one of PEFT's ``modules_to_save``, so that the adapter folder
    holds everything that was trained. What no picture feature depends on (:meth:`Backbone.unread`) stays frozen.
    """
    owner = backbone.component_of(model)
    tuning = dict(components.items())
    sees = any(tuning[component].train != "frozen" for component in ("vision", "projector"))
    unread = backbone.unread(model) if sees else set()
    expected = {name for name, component in owner.items() if tuning[component].train == "full"} - unread
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in expected)
    if any(t.train == "lora" for t in tuning.values()):
        model = get_peft_model(model, _lora_config(model, backbone, components, unread))
        for name, parameter in model.named_parameters():
            if original_name(name) in unread:  # PEFT trains the whole of what it is to save
                parameter.requires_grad_(False)
    _assert_trainable(model, expected, lora={c for c, t in tuning.items() if t.train == "lora"}, owner=owner)
    return model


def _lora_config(model: PreTrainedModel, backbone: Backbone, components: Components, unread: set[str]) -> LoraConfig:
    paths = backbone.modules_of(model)
    head = model.get_output_embeddings()
    targets: dict[str, Tuning] = {}
    for component, tuning in components.items():
        if tuning.train == "lora":
            linear = _linear_layers(model, paths, component, tuning.targets, head)
            found = [path for path in linear if f"{path}.weight" not in unread]
            if not found:
                raise ConfigError(f"model.components.{component}: no linear layer is named {tuning.targets}")
            targets |= {path: tuning for path in found}
    first = next(iter(targets.values()))
    others = {
        path: tuning for path, tuning in targets.items() if (tuning.rank, tuning.alpha) != (first.rank, first.alpha)
    }
    if len({tuning.dropout for tuning in targets.values()}) > 1:
        raise ConfigError("LoRA dropout must be the same for all components (PEFT has one for the whole model)")
    modules = dict(model.named_modules())
    full = [path for component, tuning in components.items() if tuning.train == "full" for path in paths[component]]
    loose = [path for path in full if path not in modules]
    if loose:
        raise ConfigError(
            f"{', '.join(loose)} cannot be trained in full beside LoRA elsewhere: PEFT saves whole modules only. "
            "Train every component in full, or the language model by LoRA"
        )
    return LoraConfig(
        r=first.rank,
        lora_alpha=first.alpha,
        lora_dropout=first.dropout,
        target_modules="|".join(re.escape(path) for path in targets),  # a string is matched as a full regex
        rank_pattern={f"^{re.escape(path)}$": tuning.rank for path, tuning in others.items()},
        alpha_pattern={f"^{re.escape(path)}$": tuning.alpha for path, tuning in others.items()},
        modules_to_save=full or None,
    )


def _linear_layers(
    model: nn.Module, paths: dict[Component, list[str]], component: Component, names: list[str] | None, head: nn.Module
) -> Iterable[str]:
    for path, module in model.named_modules():
        named = names is None or path.rsplit(".", 1)[-1] in names
        if named and isinstance(module, nn.Linear) and module is not head and _owner_of(path, paths) == component:
            yield path


def _owner_of(path: str, paths: dict[Component, list[str]]) -> Component | None:
    held = [(len(p), c) for c, found in paths.items() for p in found if path == p or path.startswith(f"{p}.")]
    return max(held)[1] if held else None


def original_name(name: str) -> str:
    """A parameter's name without what PEFT puts around it."""
    name = name.removeprefix(_PEFT_PREFIX).replace(".base_layer.", ".")
    return re.sub(r"\.(modules_to_save\.\w+|original_module)\.", ".", name)


def component_of(name: str, owner: dict[str, Component]) -> Component:
    """Component of a parameter of the adapted model; an adapter weight belongs to the layer that it adapts."""
    plain = original_name(name)
    if plain in owner:
        return owner[plain]
    layer = re.sub(r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\..*$", "", plain)
    return owner[f"{layer}.weight"]


def _assert_trainable(model: nn.Module, full: set[str], lora: set[Component], owner: dict[str, Component]) -> None:
    """The trainable parameters are exactly those of full components, and adapters of LoRA ones."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    wrong = [n for n in trained if "lora_" in n and component_of(n, owner) not in lora]
    wrong += [n for n in trained if "lora_" not in n and original_name(n) not in full]
    missing = full - {original_name(name) for name in trained}
    adapted = {component_of(name, owner) for name in trained if "lora_" in name}
    if wrong or missing or adapted != lora:
        raise AssertionError(f"trainable set differs from the component table: {wrong=} {missing=} {adapted=} {lora=}")


def summary(model: nn.Module, owner: dict[str, Component], components: Components) -> list[dict[str, Any]]:
    """One row a component: parameters of the original model, trainable parameters, learning rate."""
    rows = {
        c: {
            "component": c,
            "train": t.train,
            "learning_rate": t.learning_rate,
            "parameters": 0,
            "trainable": 0,
            "note": "",
        }
        for c, t in components.items()
    }
    for component, tuning in components.items():
        if tuning.train == "lora":
            rows[component]["note"] = f"rank {tuning.rank}, alpha {tuning.alpha}"
    for name, parameter in model.named_parameters():
        row: dict[str, Any] = rows[component_of(name, owner)]
        if "lora_" not in name and ".modules_to_save." not in name:
            row["parameters"] += parameter.numel()
        if parameter.requires_grad:
            row["trainable"] += parameter.numel()
    return list(rows.values())


def summary_table(rows: list[dict[str, Any]]) -> RichTable:
    table = RichTable(title="what trains")
    for column in ("component", "train", "learning rate", "parameters", "trainable"):
        table.add_column(column, justify="left" if column in ("component", "train") else "right")
    for row in rows:
        rate = "" if row["learning_rate"] is None else f"{row['learning_rate']:g}"
        how = f"{row['train']} ({row['note']})" if row["note"] else row["train"]
        table.add_row(row["component"], how, rate, f"{row['parameters']:,}", f"{row['trainable']:,}")
    return table


def parameter_groups(model: nn.Module, owner: dict[str, Component], components: Components) -> list[dict[str, Any]]:
    """Optimizer groups, one a trained component, each with its learning rate and its name."""
    groups: dict[Component, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(component_of(name, owner), []).append(parameter)
    rates = {component: tuning.learning_rate for component, tuning in components.items()}
    return [{"params": params, "lr": rates[component], "name": component} for component, params in groups.items()]
