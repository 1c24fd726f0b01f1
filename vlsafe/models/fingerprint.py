"""Which weights these are, in 64 characters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from vlsafe.strategies.shards import put_together


@torch.no_grad()
def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over every tensor's name, shape, sum and a strided sample of 1,024 elements, in whatever type they are.

    Reading every byte of a 7B model would take a minute; the sum sees every element, so that a retrained checkpoint at
    the same path is never taken for the old one (pitfalls N4). Tensors that lie in pieces are put together on each
    process, one at a time: all of them must ask, and get one answer.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = put_together(tensor).detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 1024)].double().cpu()
        digest.update(f"{name} {tuple(tensor.shape)} {flat.sum(dtype=torch.float64).item()!r}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
