"""EVA-02's vision transformer as a Hugging Face model, which transformers does not have.

Architecture: Fang et al. 2023 (arXiv 2303.11331), in the form of EVA-CLIP (Sun et al. 2023, arXiv 2303.15389): rotary
positions beside learnt ones, gated feed-forward, a norm inside attention and feed-forward, no bias on the keys.
State-dict keys are those of the checkpoints that timm publishes, whose weights load as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class EVA02Config(PretrainedConfig):
    """``rotary_grid``: patches along a side at which rotary positions count one by one; others are scaled to it."""

    model_type = "eva02_vision_model"
    image_size: int = 336
    patch_size: int = 14
    hidden_size: int = 1024
    intermediate_size: int = 2730
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    layer_norm_eps: float = 1e-6
    rotary_grid: int = 16
    rotary_base: float = 10000.0
    initializer_range: float = 0.02


def rotary_angles(grid: int, head_width: int, config: EVA02Config, device: torch.device) -> Tensor:
    """Angles [patches, head width / 2], fp32: the first half of them turns with the row, the second with the column."""
    bands = torch.arange(head_width // 4, dtype=torch.float32, device=device) / (head_width // 4)
    place = torch.arange(grid, dtype=torch.float32, device=device) * (config.rotary_grid / grid)
    turns = torch.outer(place, config.rotary_base**-bands)
    rows, columns = turns[:, None].expand(-1, grid, -1), turns[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Neighbouring pairs of ``x`` [..., 1 + patches, head width] turned by ``angles``; the class token has no place."""
    patches = x[..., 1:, :].float().unflatten(-1, (-1, 2))
    cos, sin = angles.cos(), angles.sin()
    even, odd = patches.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([x[..., :1, :], turned.to(x.dtype)], dim=-2)


def _plain_attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: None, **_: Any) -> tuple[Tensor, Tensor]:
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2), weights


class EVA02Attention(nn.Module):
    def __init__(self, config: EVA02Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.heads = config.num_attention_heads
        self.is_causal = False
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, _plain_attention)
        seen, _ = attend(self, rotated(q, angles), rotated(k, angles), v, None)
        return self.proj(self.norm(seen.flatten(2)))


class EVA02FeedForward(nn.Module):
    def __init__(self, config: EVA02Config) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc1_x = nn.Linear(config.hidden_size, config.intermediate_size)
        self.norm = nn.LayerNorm(config.intermediate_size, config.layer_norm_eps)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(F.silu(self.fc1_g(x)) * self.fc1_x(x)))


class EVA02Block(GradientCheckpointingLayer):
    def __init__(self, config: EVA02Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attn = EVA02Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = EVA02FeedForward(config)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), angles)
        return x + self.mlp(self.norm2(x))


class EVA02Model(PreTrainedModel):
    """``pixel_values`` [B, 3, size, size] -> ``hidden_states`` of the embeddings and of every block,
    [B, 1 + patches, width] each; ``last_hidden_state`` is the last of them, normalised."""

    config_class = EVA02Config
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["EVA02Block"]
    _keys_to_ignore_on_load_unexpected = [r"^head\."]  # EVA-CLIP's map into the space it shares with text

    def __init__(self, config: EVA02Config) -> None:
        super().__init__(config)
        width, patch = config.hidden_size, config.patch_size
        self.grid = config.image_size // patch
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2 + 1, width))
        self.blocks = nn.ModuleList(EVA02Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        patches = self.patch_embed["proj"](pixel_values.to(self.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        head_width = self.config.hidden_size // self.config.num_attention_heads
        angles = rotary_angles(self.grid, head_width, self.config, x.device)
        hidden = [x]
        for block in self.blocks:
            hidden.append(block(hidden[-1], angles))
        last = self.norm(hidden[-1])
        return BaseModelOutputWithPooling(last_hidden_state=last, pooler_output=last[:, 0], hidden_states=tuple(hidden))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EVA02Model):
            nn.init.normal_(module.cls_token, std=self.config.initializer_range)
            nn.init.normal_(module.pos_embed, std=self.config.initializer_range)


AutoConfig.register(EVA02Config.model_type, EVA02Config)
AutoModel.register(EVA02Config, EVA02Model)
