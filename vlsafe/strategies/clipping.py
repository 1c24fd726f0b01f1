"""Gradient clipping, the same on one device and over processes, in any precision."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float, algorithm: str | None) -> None:
    """Clip to ``limit`` by ``norm`` (the default), over all parameters and processes, or by ``value``.

    Lightning refuses fused optimizers under mixed precision, since float16's scaler would not have unscaled their
    gradients yet; bfloat16 has no scaler.
    """
    if algorithm == "value":
        nn.utils.clip_grad_value_(parameters, limit)
    else:
        nn.utils.clip_grad_norm_(parameters, limit)
