"""Hugging Face directories: the tuned model whole, and its adapter."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import PreTrainedModel

from vlsafe import __version__
from vlsafe.errors import ConfigError, VlsafeError
from vlsafe.models.adaptation import original_name
from vlsafe.models.consolidation import round_to, whole_state
from vlsafe.models.fingerprint import fingerprint
from vlsafe.models.module import SafetyFineTuning
from vlsafe.models.projector_weights import FILE
from vlsafe.models.responder import end_tokens
from vlsafe.models.strength import FACTS, ONE_STRENGTH, base_tensors, merged, merged_in_pieces
from vlsafe.strategies.filling import cast


def export_adapter(module: SafetyFineTuning, directory: Path, card: str) -> Path | None:
    """The adapter in PEFT's format, with every fully trained component beside the LoRA weights; None without LoRA.

    ``projector.safetensors`` holds the projector by its names in the model, trained or as it came (adapters in it stay
    with the other adapters), and ``vlsafe.json`` says what the adapter belongs to. Every process of a run calls it; the
    first writes.
    """
    model, first = module.model, module.global_rank == 0
    if not isinstance(model, PeftModel):
        return None
    if not first and module.sharded is None:
        return directory
    base = None if module.components.quantises else fingerprint(base_tensors(model))
    projector = _projector(module)
    state = whole_state(model, first, lambda name: _is_tuned(name) or name in projector)
    if not first:
        return directory
    with written_whole(directory) as target:
        # embeddings are saved where the component table trains them; PEFT's guess would ask the hub
        tuned = {name: tensor for name, tensor in state.items() if _is_tuned(name)}
        model.save_pretrained(target, state_dict=tuned, save_embedding_layers=False)
        written = {original: state[name].contiguous() for name, original in projector.items()}
        save_file(written, target / FILE, metadata={"format": "pt"})
        module.backbone.processor.save_pretrained(target)
        _write_facts(module, target, kind="adapter", base_weights=base)
        (target / "README.md").write_text(card, encoding="utf-8")
    return directory


def export_model(
    module: SafetyFineTuning, directory: Path, card: str, max_shard_size: str = "5GB", strength: float = 1.0
) -> Path:
    """The model as transformers loads it: adapters merged into the weights, processor beside them, ``card`` as README.

    The merge happens in place: afterwards the module holds the exported model and cannot be trained further. Every
    process of a run calls it; the first writes, with the whole model in its host memory where it lies in pieces.

    Args:
        module: with its model loaded, trained or from a checkpoint.
        directory: takes the place of what stood there, once it is written whole.
        card: text of README.md.
        max_shard_size: largest weight file, such as ``5GB`` or ``200MB``.
        strength: of the adapters, see :func:`vlsafe.models.strength.merged`.

    Raises:
        ConfigError: a strength other than 1 where there is no adapter to weaken.
    """
    if module.model is None:
        raise VlsafeError("nothing to export: the model has not been loaded")
    if strength != 1 and module.adapter is not None:
        raise ConfigError(ONE_STRENGTH.format(strength, module.adapter))
    if strength != 1 and not isinstance(module.model, PeftModel):
        raise ConfigError(f"LoRA strength {strength} needs adapters, and this run has none; leave it at 1")
    model, first = merge(module, strength), module.global_rank == 0
    if not first and module.sharded is None:
        return directory
    dtype = getattr(torch, module.backbone.dtype)
    state = whole_state(model, first, dtype=dtype)
    if not first:
        return directory
    with written_whole(directory) as target:
        model.save_pretrained(target, state_dict=state, max_shard_size=max_shard_size)
        model.config.dtype = dtype  # transformers looks at the parameters, of which pieces may be in another type
        model.config.save_pretrained(target)
        module.backbone.processor.save_pretrained(target)
        _write_facts(module, target, kind="model", lora_strength=strength)
        (target / "README.md").write_text(card, encoding="utf-8")
    return directory


def merge(module: SafetyFineTuning, strength: float = 1.0) -> PreTrainedModel:
    """The module's model as it is exported, adapters merged into the weights, all in the backbone's type; in place.

    Under ``bf16-mixed`` each product in training was of weights that autocast had rounded to bfloat16: rounded once and
    for all, they give the same answers.
    """
    assert module.model is not None
    dtype = getattr(torch, module.backbone.dtype)
    if module.sharded is None:
        model = merged(_unpacked(module), strength) if isinstance(module.model, PeftModel) else module.model
        cast(model, dtype)
    else:
        model = merged_in_pieces(module.model) if isinstance(module.model, PeftModel) else module.model
        round_to(model, dtype)
    module.model = model
    model.config.use_cache = True
    model.generation_config.eos_token_id = end_tokens(model, module.backbone.processor)
    return model


def _unpacked(module: SafetyFineTuning) -> PeftModel:
    """Adapters over weights in their own precision: merging into 4-bit ones would round the tuning away."""
    tuned = module.model
    if not module.components.quantises:
        return tuned
    fresh = SafetyFineTuning(module.backbone, module.components.unquantised())
    fresh.configure_model()
    assert tuned is not None and fresh.model is not None
    trained = {name: p.detach() for name, p in tuned.named_parameters() if p.requires_grad}
    fresh.model.load_state_dict(trained, strict=False)
    return fresh.model.to(tuned.device)


def _is_tuned(name: str) -> bool:
    """Whether PEFT saves it with the adapter."""
    return "lora_" in name or ".modules_to_save." in name


def _projector(module: SafetyFineTuning) -> dict[str, str]:
    """Of parameters and buffers of the projector, without adapters: name in the adapted model -> in the model."""
    assert module.plan is not None and module.model is not None
    names = {name for name, component in module.plan.owner.items() if component == "projector"}
    parents = {name.rpartition(".")[0] for name in names}
    state = {n: original_name(n) for n in module.model.state_dict() if ".original_module." not in n}
    return {
        name: original
        for name, original in state.items()
        if original in names or (original.rpartition(".")[0] in parents and original not in module.plan.owner)
    }


def _write_facts(module: SafetyFineTuning, target: Path, **facts: Any) -> None:
    model = module.model
    assert model is not None
    content = {
        "vlsafe": __version__,
        **facts,
        "base": model.config.name_or_path or None,
        "went_on_from": module.adapter,
        "dtype": module.backbone.dtype,
        "trained": module.trained,
    }
    (target / FACTS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def written_whole(directory: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``directory`` once it is written whole.

    Raises VlsafeError when the disk fills up; what stood at ``directory`` before stays as it was.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _disk_error(error, directory) from error
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if "No space left on device" in str(error):  # safetensors raises its own class around the system's words
            raise _disk_error(OSError(errno.ENOSPC, "No space left on device"), directory) from error
        raise
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


def _disk_error(error: OSError, directory: Path) -> VlsafeError:
    if error.errno == errno.ENOSPC:
        return VlsafeError(
            f"the disk is full: {directory} could not be written and nothing of it is left. Free some space and run "
            "`python -m vlsafe export` on the run's last checkpoint"
        )
    return VlsafeError(f"{directory} could not be written: {error}")
