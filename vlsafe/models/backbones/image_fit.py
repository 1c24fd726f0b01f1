"""Pictures padded to a square for a checkpoint whose own image processor cuts their centre out."""

from __future__ import annotations

from typing import Literal

from transformers import PretrainedConfig, ProcessorMixin
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from vlsafe.errors import ConfigError

CheckpointFit = Literal["checkpoint", "pad"]
"""How an image becomes a square: as the checkpoint's image processor says, or padded with its mean colour."""

_KEPT = (
    "size", "crop_size", "resample", "do_resize", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std",
)  # fmt: skip


def pad_to_square(processor: ProcessorMixin, config: PretrainedConfig, checkpoint: str) -> None:
    """Has ``processor`` fill an image up to a square with the mean colour, then go on as it did.

    That is LLaVA's ``image_aspect_ratio: pad`` (``expand2square`` in llava/mm_utils.py, then CLIP's preprocessing),
    which LLaVA-1.5 was tuned and measured with; the processor of ``llava-hf/llava-1.5-7b-hf`` lacks it. A saved
    processor keeps it, for plain transformers too.

    Raises ConfigError for a checkpoint that is no LLaVA: others have their own way with an image's shape.
    """
    if config.model_type != "llava":
        raise ConfigError(
            f"image_fit: pad is for LLaVA checkpoints (model_type 'llava'); {checkpoint} is of type "
            f"{config.model_type!r} and fits images in its own way: leave image_fit at checkpoint"
        )
    if fit_of(processor) == "pad":
        return
    told = processor.image_processor.to_dict()
    kept = {name: told[name] for name in _KEPT if told.get(name) is not None}
    processor.image_processor = LlavaImageProcessorPil(do_pad=True, **kept)


def fit_of(processor: ProcessorMixin) -> str:
    """``pad`` or ``crop`` where the image processor does that to make a square, else ``own``."""
    told = processor.image_processor.to_dict()
    if told.get("do_pad") and told["image_processor_type"].startswith("LlavaImageProcessor"):  # with or without Pil
        return "pad"
    return "crop" if told.get("do_center_crop") else "own"
