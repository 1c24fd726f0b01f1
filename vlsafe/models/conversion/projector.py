"""LLaVA's ``mm_projector.bin``, a projector alone, as a file that a backbone takes with ``projector_weights``.

Its keys are those that llava/train/train.py saves: of ``mlp2x_gelu`` ``model.mm_projector.0.weight`` and so on, of the
linear kind ``model.mm_projector.weight``.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlsafe.errors import DataError
from vlsafe.models.conversion import shards
from vlsafe.models.conversion.result import Converted
from vlsafe.models.projector_weights import FILE, KIND, PREFIX

_KEY = re.compile(r"(?:^|.*\.)mm_projector\.(?:(?P<layer>\d+)\.)?(?P<part>weight|bias)$")
_LAYERS = {None: "linear_1", "0": "linear_1", "2": "linear_2"}


def is_projector(source: Path) -> bool:
    """Whether a file holds a projector and nothing else. Raises DataError for one that cannot be read."""
    if source.suffix not in (".bin", ".pt", ".pth", ".safetensors"):
        return False
    content = shards.header(source) if source.suffix == ".safetensors" else shards.unpickled(source, "meta")
    return bool(content) and all("mm_projector" in key for key in content)


def convert_projector(source: Path, out: Path) -> Converted:
    """Write ``out/projector.safetensors`` from ``mm_projector.bin``.

    Raises DataError naming each key that is no part of LLaVA's linear or two-layer projector, or is missing.
    """
    with shards.opened(source) as tensors:
        found = {key: tensors[key] for key in shards.header(source)}
    named: dict[str, Tensor] = {}
    problems = []
    for key, tensor in found.items():
        match = _KEY.match(key)
        if match is None or match["layer"] not in _LAYERS:
            problems.append(f"{source}: {key!r} is no layer of LLaVA's linear or mlp2x_gelu projector")
        else:
            named[f"{_LAYERS[match['layer']]}.{match['part']}"] = tensor
    kind = "mlp2x_gelu" if any("linear_2" in name for name in named) else "linear"
    wanted = {f"{layer}.{part}" for layer in ("linear_1", "linear_2")[: 1 + (kind != "linear")] for part in _PARTS}
    problems += [f"{source}: nothing gives {name}" for name in sorted(wanted - named.keys())]
    if problems:
        raise DataError(problems)
    if kind == "linear":  # of LLaVA's shape in transformers, the second layer leaves everything as it is
        width = named["linear_1.weight"].shape[0]
        named |= {"linear_2.weight": torch.eye(width), "linear_2.bias": torch.zeros(width)}
        named = {name: tensor.to(named["linear_1.weight"].dtype) for name, tensor in named.items()}
    with shards.whole_folder(out) as folder:
        content = {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in named.items()}
        save_file(content, folder / FILE, metadata={"format": "pt", KIND: kind})
        (folder / FILE).chmod(0o644)  # safetensors makes its files private
    rows, columns = named["linear_1.weight"].shape
    facts = {
        "from": f"LLaVA's projector, {source}",
        "kind": f"{kind}, {columns} -> {rows}, every key matched",
        "use": f"projector_weights: {out} of a backbone, with projector: {kind} where that is chosen",
    }
    return Converted(out, facts)


_PARTS = ("weight", "bias")
