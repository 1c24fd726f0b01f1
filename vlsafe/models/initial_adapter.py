"""Going on with an adapter: training starts from its weights instead of from new ones."""

from __future__ import annotations

import logging
from pathlib import Path

from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from vlsafe.errors import ConfigError, DataError
from vlsafe.fetch.paths import resolved

log = logging.getLogger(__name__)

_WEIGHTS = "adapter_model.safetensors"
_SCALING = ("lora_alpha", "alpha_pattern", "use_rslora", "use_dora")
"""What of PEFT's config decides, with the rank, how much an adapter's weights do."""


def adapter_folder(path: str) -> Path:
    """The folder of a PEFT adapter. Raises ConfigError when there is none."""
    folder = Path(resolved(path))
    lacking = [name for name in ("adapter_config.json", _WEIGHTS) if not (folder / name).is_file()]
    if lacking:
        raise ConfigError(
            f"model.adapter: {folder} has no {' and no '.join(lacking)}; name the folder of an adapter, such as a "
            "run's adapter/ or what `vlsafe convert --keep-lora` writes"
        )
    return folder


def start_from(model: PeftModel, path: str) -> None:
    """Give the adapters of ``model`` the weights of the folder ``path``, and what was trained whole beside them.

    A component that trains in full and is not in the folder keeps the checkpoint's weights, and a line says so. Raises
    ConfigError listing every layer, shape and scale in which the folder differs from the component table.
    """
    folder = adapter_folder(path)
    try:
        found = load_file(folder / _WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder / _WEIGHTS}: cannot be read ({error}); is it whole?") from error
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    ours, theirs = model.peft_config["default"], PeftConfig.from_pretrained(folder)
    scaling = {name: (getattr(theirs, name), getattr(ours, name)) for name in _SCALING}
    problems = [
        f"{name} is {told} in {folder}, {wanted} by model.components"
        for name, (told, wanted) in scaling.items()
        if told != wanted
    ]
    absent = [name for name in expected if name not in found]
    problems += [f"{folder} has no {name}, which model.components adapts" for name in absent if "lora_" in name]
    problems += [f"{folder} has {name}, which does not train by model.components" for name in found.keys() - expected]
    problems += [
        f"{name} is {list(found[name].shape)} in {folder}, {list(tensor.shape)} by model.components"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        raise ConfigError([*problems[:8], *([f"and {len(problems) - 8} more"] if len(problems) > 8 else [])])
    set_peft_model_state_dict(model, {name: expected[name] for name in absent} | found)
    log.info("going on with %s: %d tensors", folder, len(found))
    whole = sorted({name.removeprefix("base_model.model.") for name in absent})
    if whole:
        log.info("not in it, and so as the checkpoint has them: %s", ", ".join(whole))
