"""Vision encoders: one file each, and their table.

Importing this package tells transformers of the model types that are ours, so that checkpoints with them load again.
"""

from __future__ import annotations

import importlib
from typing import Any

from vlsafe.errors import ConfigError
from vlsafe.models.encoders import efficientnet_lite0, eva02_model, patch_model
from vlsafe.models.encoders.base import VisionEncoder
from vlsafe.table import Table

OWN_MODELS = (efficientnet_lite0.EfficientNetLite0Model, eva02_model.EVA02Model, patch_model.PatchFeaturesModel)

ENCODERS = Table(
    "vision encoder",
    clip="vlsafe.models.encoders.clip:CLIP",
    dinov2="vlsafe.models.encoders.dinov2:DINOv2",
    dinov2_registers="vlsafe.models.encoders.dinov2:DINOv2Registers",
    efficientnet_lite0="vlsafe.models.encoders.efficientnet_lite0:EfficientNetLite0",
    eva02="vlsafe.models.encoders.eva02:EVA02",
    siglip="vlsafe.models.encoders.siglip:SigLIP",
    siglip2="vlsafe.models.encoders.siglip:SigLIP2",
)

Weights = str | dict[str, Any] | None


def vision_encoder_of(
    name: str, weights: Weights | list[Weights] = None, image_size: int | None = None
) -> VisionEncoder:
    """The encoder that ``name`` stands for: a name of the table, a class path of your own (``package.module.Class``),
    or several of them joined by ``+``, whose patch features then stand side by side.

    ``weights``: those of the encoder, see :class:`VisionEncoder`; for several a list in their order. Nothing is read
    from the disk yet. Raises ConfigError.
    """
    names = name.split("+")
    if len(names) == 1:
        if isinstance(weights, list):
            raise ConfigError(f"vision_weights is a list, but vision_encoder {name!r} is a single encoder")
        return _encoder_class(name)(weights, image_size)
    each = [None] * len(names) if weights is None else weights
    if not isinstance(each, list) or len(each) != len(names):
        raise ConfigError(f"vision_encoder {name!r} needs vision_weights as a list of {len(names)}, in its order")
    from vlsafe.models.encoders.fused import PatchFeatures

    return PatchFeatures([_encoder_class(n.strip())(w) for n, w in zip(names, each, strict=True)], image_size)


def _encoder_class(name: str) -> type[VisionEncoder]:
    if "." not in name:
        return ENCODERS[name]
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"vision_encoder {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, VisionEncoder)):
        raise ConfigError(
            f"vision_encoder {name!r} is no subclass of vlsafe.models.encoders.base.VisionEncoder; "
            "docs/adding_a_part.md shows how to write one"
        )
    return found
