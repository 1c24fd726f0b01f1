"""Hugging Face directories: the tuned model whole, and its adapter."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel

from vlsafe.errors import VlsafeError
from vlsafe.models.module import SafetyFineTuning
from vlsafe.models.responder import end_tokens


def export_adapter(module: SafetyFineTuning, directory: Path) -> Path | None:
    """The adapter in PEFT's format, with every fully trained component beside the LoRA weights; None without LoRA."""
    model = module.model
    if not isinstance(model, PeftModel):
        return None
    with written_whole(directory) as target:
        model.save_pretrained(target)
        module.backbone.processor.save_pretrained(target)
    return directory


def export_model(module: SafetyFineTuning, directory: Path, card: str) -> Path:
    """The model as transformers loads it: adapters merged into the weights, processor beside them, ``card`` as README.

    The merge happens in place: afterwards the module holds the exported model and cannot be trained further.
    """
    if isinstance(module.model, PeftModel):
        module.model = module.model.merge_and_unload()
    if module.model is None:
        raise VlsafeError("nothing to export: the model has not been loaded")
    module.model.config.use_cache = True
    module.model.generation_config.eos_token_id = end_tokens(module.model, module.backbone.processor)
    with written_whole(directory) as target:
        module.model.save_pretrained(target)
        module.backbone.processor.save_pretrained(target)
        (target / "README.md").write_text(card, encoding="utf-8")
    return directory


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
