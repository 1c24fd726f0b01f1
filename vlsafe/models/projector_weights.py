"""Weights of a projector alone, put into a model that has one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from vlsafe.errors import ConfigError, DataError
from vlsafe.fetch.paths import resolved

FILE = "projector.safetensors"
KIND = "projector"
"""Metadata key of the projector's kind, a name of the projector table."""
PREFIX = "model.multi_modal_projector."


def projector_file(path: str) -> Path:
    """The file that ``projector_weights`` names: a folder's ``projector.safetensors``, or that file itself.

    Raises ConfigError when it is not there, or is LLaVA's own ``.bin``.
    """
    given = Path(resolved(path))
    file = given / FILE if given.is_dir() else given
    if file.suffix == ".bin":
        raise ConfigError(
            f"projector_weights: {file} is of LLaVA's own layout; `python -m vlsafe convert {file} --out DIR` writes "
            "the folder to name here"
        )
    if not file.is_file():
        raise ConfigError(f"projector_weights: {file}: no such file; name what `vlsafe convert` or an export wrote")
    return file


def put_projector(model: PreTrainedModel, names: Iterable[str], path: str, kind: str | None = None) -> None:
    """Replace the parameters ``names`` of ``model``, its projector's, by those of a file, in their own precision.

    ``kind``: the projector's name in the table, where it is known. Raises DataError naming each key that is missing or
    unknown there, and each of another shape.
    """
    file = projector_file(path)
    try:
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            told = (opened.metadata() or {}).get(KIND)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: cannot be read ({error}); is it whole?") from error
    expected = {name: parameter for name, parameter in model.named_parameters() if name in set(names)}
    problems = [f"{file}: no {name} {list(p.shape)}" for name, p in expected.items() if name not in tensors]
    problems += [f"{file}: {name} is no part of this model's projector" for name in tensors if name not in expected]
    problems += [
        f"{file}: {name} is {list(tensors[name].shape)}, this model's is {list(parameter.shape)}"
        for name, parameter in expected.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if kind is not None and told is not None and told != kind:
        problems.append(f"{file}: holds a projector of kind {told}, the backbone's is {kind}; set projector: {told}")
    if problems:
        raise DataError(problems)
    for name, parameter in expected.items():
        owner, _, attribute = name.rpartition(".")
        values = tensors[name].to(parameter.device, parameter.dtype)
        made = nn.Parameter(values, requires_grad=parameter.requires_grad)
        setattr(model.get_submodule(owner), attribute, made)
