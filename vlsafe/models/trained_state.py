"""Which tensors of a tuned model a checkpoint holds: what trains, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vlsafe.errors import VlsafeError


def kept_names(model: nn.Module) -> tuple[set[str], set[str]]:
    """Parameters that train, and buffers of modules whose parameters train themselves, such as BatchNorm statistics; by
    their names in a LightningModule that holds ``model`` under that name."""
    trainable = {f"model.{name}" for name, p in model.named_parameters() if p.requires_grad}
    buffers = {
        f"model.{path}.{name}" if path else f"model.{name}"
        for path, part in model.named_modules()
        if "lora_" not in path and any(p.requires_grad for p in part.parameters(recurse=False))
        for name, _ in part.named_buffers(recurse=False)
    }
    return trainable, buffers


def require_same(state: Mapping[str, Any], model: nn.Module) -> None:
    """Raises VlsafeError unless ``state``, a checkpoint's, holds exactly what trains in ``model``."""
    expected, buffers = kept_names(model)
    found = set(state) - buffers
    if found != expected:
        raise VlsafeError(
            "the checkpoint does not fit this config's components: "
            f"{len(expected - found)} tensors that train here are missing from it, "
            f"{len(found - expected)} of its tensors do not train here. "
            "Resume with the config of the run that wrote it (config.yaml in its run directory)"
        )
