"""The component table: what trains, how, and how fast. Contradictions are refused (pitfalls B5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from vlsafe.errors import ConfigError
from vlsafe.models.backbones.base import COMPONENTS, Component

Part = Literal["frozen", "full"]


@dataclass(frozen=True)
class Tuning:
    """What happens to one component.

    Args:
        train: ``frozen``, ``full``, ``lora``, or ``qlora``: adapters over weights that are kept in 4 bits (Dettmers et
            al. 2023, arXiv 2305.14314; needs a GPU and bitsandbytes).
        learning_rate: peak learning rate; needed unless frozen.
        weight_decay: of this component; None takes ``model.weight_decay``.
        last_layers: of the vision encoder, train only the last so many of the layers that are read; in each stack of
            layers, where an encoder has several.
        rank, alpha, dropout: of the LoRA adapters (Hu et al. 2021, arXiv 2106.09685).
        targets: names of the linear layers that get adapters, whole (``q_proj``) or with what stands before them
            (``self_attn.q_proj``); None takes every linear layer of the component but the output head.
        rslora: scale adapters by ``alpha / sqrt(rank)`` (Kalajdzievski 2023, arXiv 2312.03732), not ``alpha / rank``.
        dora: train magnitude and direction apart (Liu et al. 2024, arXiv 2402.09353).
    """

    train: Literal["frozen", "full", "lora", "qlora"] = "frozen"
    learning_rate: float | None = None
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: list[str] | None = None
    weight_decay: float | None = None
    last_layers: int | None = None
    rslora: bool = False
    dora: bool = False

    @property
    def adapts(self) -> bool:
        """Whether the component gets adapters."""
        return self.train in ("lora", "qlora")


@dataclass(frozen=True)
class Components:
    """The component table of a run.

    ``embeddings`` and ``head``, the input embeddings and the output head, belong to ``language``: they train in full
    or not at all, at its rate. None follows ``language`` where it trains in full, and freezes them otherwise. A head
    that is tied to the embeddings is the same tensor and follows them.
    """

    vision: Tuning = field(default_factory=Tuning)
    projector: Tuning = field(default_factory=Tuning)
    language: Tuning = field(default_factory=Tuning)
    embeddings: Part | None = None
    head: Part | None = None

    def items(self) -> list[tuple[Component, Tuning]]:
        return [(component, getattr(self, component)) for component in COMPONENTS]

    @property
    def adapts(self) -> bool:
        return any(tuning.adapts for _, tuning in self.items())

    @property
    def quantises(self) -> bool:
        return any(tuning.train == "qlora" for _, tuning in self.items())

    @property
    def trains_in_full(self) -> bool:
        """Whether any weights of the checkpoint train themselves."""
        return "full" in (self.embeddings, self.head, *(tuning.train for _, tuning in self.items()))

    def unquantised(self) -> Components:
        """The same table over weights in their own precision: the adapters have the same names and shapes."""
        plain = {c: replace(t, train="lora") if t.train == "qlora" else t for c, t in self.items()}
        return Components(**plain, embeddings=self.embeddings, head=self.head)

    def trains(self, component: Component) -> bool:
        """Whether anything of the component trains."""
        words = component == "language" and "full" in (self.embeddings, self.head)
        return words or getattr(self, component).train != "frozen"

    def check(self) -> None:
        """What is wrong with the table, all at once, before weights load. Raises ConfigError."""
        problems = []
        for component, tuning in self.items():
            where = f"model.components.{component}"
            if not self.trains(component) and tuning.learning_rate is not None:
                problems.append(f"{where} is frozen but has a learning_rate; remove it or set train: full")
            if self.trains(component) and tuning.learning_rate is None:
                how = tuning.train if tuning.train != "frozen" else "its embeddings or head"
                problems.append(f"{where} is trained ({how}) but has no learning_rate")
            if tuning.learning_rate is not None and tuning.learning_rate <= 0:
                problems.append(f"{where}.learning_rate is {tuning.learning_rate}; freeze the component instead")
            if tuning.weight_decay is not None and tuning.weight_decay < 0:
                problems.append(f"{where}.weight_decay is {tuning.weight_decay}, must not be negative")
            if tuning.weight_decay is not None and not self.trains(component):
                problems.append(f"{where} is frozen but has a weight_decay; remove it")
            problems += [f"{where}.{problem}" for problem in _adapter_problems(tuning)]
            problems += [f"{where}.{problem}" for problem in _layer_problems(component, tuning)]
        if not any(self.trains(component) for component in COMPONENTS):
            problems.append("model.components freezes every component, so nothing would train")
        problems += self._disagreements()
        if problems:
            raise ConfigError(problems)

    def _disagreements(self) -> list[str]:
        """What PEFT has once for a whole model."""
        adapted = [tuning for _, tuning in self.items() if tuning.adapts]
        words = {"dropout": "LoRA dropout", "rslora": "rslora", "dora": "dora"}
        return [
            f"{name} must be the same for all components (PEFT has one for the whole model)"
            for option, name in words.items()
            if len({getattr(tuning, option) for tuning in adapted}) > 1
        ]


def _adapter_problems(tuning: Tuning) -> list[str]:
    if not tuning.adapts:
        used = [name for name in ("rslora", "dora") if getattr(tuning, name)]
        used += ["targets"] if tuning.targets is not None else []
        return [f"{name} is for adapters, but train is {tuning.train}; remove it or set train: lora" for name in used]
    problems = []
    if tuning.rank < 1:
        problems.append(f"rank is {tuning.rank}, must be at least 1")
    if not 0 <= tuning.dropout < 1:
        problems.append(f"dropout is {tuning.dropout}, must be at least 0 and below 1")
    if tuning.targets == []:
        problems.append("targets is empty; name linear layers, or leave it out for all of them")
    return problems


def _layer_problems(component: Component, tuning: Tuning) -> list[str]:
    if tuning.last_layers is None:
        return []
    if component != "vision":
        return ["last_layers is for the vision encoder; here, name the layers in targets"]
    if tuning.train == "frozen":
        return ["last_layers says which layers train, but train is frozen; remove it or set train: full"]
    if tuning.last_layers < 1:
        return [f"last_layers is {tuning.last_layers}, must be at least 1; set train: frozen for none"]
    return []
