"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, positions counted in three directions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from making import PICTURE, Family, ids_of, language, template, tokenizer
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
OWN = (
    "{% for m in messages %}"
    "{% if DEFAULT and loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' }}{% for c in m.content %}"
    "{% if c.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _writer(
    kind: Callable[..., PreTrainedModel], config: type, text: str, sight: dict[str, Any], default: str
) -> Callable[[Path], PreTrainedModel]:
    def write(folder: Path) -> PreTrainedModel:
        size = tokenizer(
            folder,
            "<|im_start|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
            eos_token="<|im_end|>",
        )
        template(folder, OWN.replace("DEFAULT", default))
        Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
        ).save_pretrained(folder)
        image, video, start, end = ids_of(
            folder, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
        )
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
        made = config(
            text_config=language(folder, size, text, rope_parameters=rope, head_dim=8),
            vision_config=dict(patch_size=4, spatial_merge_size=2, temporal_patch_size=2, num_heads=2) | sight,
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
            vision_end_token_id=end,
        )
        return kind(made)

    return write


def _turns(*turns: tuple[str, str]) -> str:
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n[[{}<|im_end|>]]\n"
    return "".join(asked.format(*turn) for turn in turns)


def _golden(system: str) -> dict[str, str]:
    return dict(
        single=system + _turns((f"{PICTURE}c?", "red")),
        two_turns=system + _turns((f"{PICTURE}a?", "no"), ("b?", "yes")),
        text=system + _turns(("hi", "yo")),
        later_picture=system + _turns(("hi", "yo"), (f"{PICTURE}c?", "red")),
        system="<|im_start|>system\nbe good<|im_end|>\n" + _turns(("hi", "yo")),
    )


PIECE = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"  # 16 patches of 4 x 4 pixels, four merged into one
BLOCKS = ["model.visual.patch_embed.", "model.visual.blocks."]
LANGUAGE = ["model.language_model.", "lm_head."]

QWEN2 = Family(
    "qwen2_vl",
    _writer(
        Qwen2VLForConditionalGeneration,
        Qwen2VLConfig,
        "qwen2_vl_text",
        dict(depth=2, embed_dim=16, hidden_size=16, mlp_ratio=2),
        "true",
    ),
    picture=PIECE,
    golden=_golden(SYSTEM),
    parts=dict(vision=BLOCKS, projector=["model.visual.merger."], language=LANGUAGE),
)
QWEN2_5 = Family(
    "qwen2_5_vl",
    _writer(
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLConfig,
        "qwen2_5_vl_text",
        dict(
            depth=2, hidden_size=16, out_hidden_size=16, intermediate_size=32, window_size=8, fullatt_block_indexes=[1]
        ),
        "true",
    ),
    picture=PIECE,
    golden=_golden(SYSTEM),
    parts=dict(vision=BLOCKS, projector=["model.visual.merger."], language=LANGUAGE),
)
QWEN3 = Family(
    "qwen3_vl",
    _writer(
        Qwen3VLForConditionalGeneration,
        Qwen3VLConfig,
        "qwen3_vl_text",
        dict(
            depth=2,
            hidden_size=16,
            out_hidden_size=16,
            intermediate_size=32,
            num_position_embeddings=16,
            deepstack_visual_indexes=[0],
        ),
        "false",
    ),
    picture=PIECE,
    golden=_golden(""),
    parts=dict(
        vision=[*BLOCKS, "model.visual.pos_embed."],
        projector=["model.visual.merger.", "model.visual.deepstack_merger_list."],
        language=LANGUAGE,
    ),
)
