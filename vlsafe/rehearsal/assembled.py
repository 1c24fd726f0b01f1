"""The small model put together as the run will have it, for what must fit it: an adapter to go on with, a base."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from vlsafe.cli import built
from vlsafe.models.export import export_adapter
from vlsafe.models.module import SafetyFineTuning
from vlsafe.rehearsal.draft import Draft

_ALONE = ("accelerator=cpu", "devices=1", "strategy=auto", "precision=32-true", "logger=false", "callbacks=null")
"""This process stays off the GPU, for those that are forked from it."""


def assembled(draft: Draft, folder: Path, **changed: str | None) -> SafetyFineTuning:
    """The module of the config as it is by now, without weights, with ``changed`` of ``model.init_args``."""
    model = draft.content["model"]
    content = draft.content | {"model": model | {"init_args": model["init_args"] | changed}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "assembled.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    module = built(["--config", str(path), *(f"--trainer.{setting}" for setting in _ALONE)]).model
    assert isinstance(module, SafetyFineTuning)
    return module


def small_adapter(draft: Draft, folder: Path) -> None:
    """Where training is to go on with an adapter: one of random weights that fits the small model."""
    name = draft.get("model.init_args.adapter")
    if name is None:
        return
    module = assembled(draft, folder, adapter=None)
    module.configure_model()
    assert module.model is not None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in module.model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0.0, 0.02, generator=generator)
    export_adapter(module, folder / "adapter", "")
    draft.put("model.init_args.adapter", str(folder / "adapter"))
    draft.tell(name, "random adapters of the same layers, rank and scale", "it must fit the small model")


def base_of(draft: Draft, folder: Path) -> Path:
    """A folder with the model that the run's adapter belongs to, for a backbone that is composed of parts."""
    module = assembled(draft, folder)
    module.backbone.load_model().save_pretrained(folder / "base")
    return folder / "base"
