"""Vision encoders: one file each, and their table."""

from __future__ import annotations

from vlsafe.table import Table

ENCODERS = Table(
    "vision encoder",
    clip="vlsafe.models.encoders.clip:CLIP",
    dinov2="vlsafe.models.encoders.dinov2:DINOv2",
    efficientnet_lite0="vlsafe.models.encoders.efficientnet_lite0:EfficientNetLite0",
    siglip="vlsafe.models.encoders.siglip:SigLIP",
)
