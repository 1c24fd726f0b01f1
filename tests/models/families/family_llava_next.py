"""LLaVA-NeXT: a picture becomes tiles, with a learnt line break after each row of patches."""

from __future__ import annotations

from pathlib import Path

from making import CLIP, PICTURE, Family, ids_of, language, template, tokenizer
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    PreTrainedModel,
)

GRID = [[16, 32], [32, 16], [32, 32]]
MISTRAL = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ '<<SYS>>\n' + m.content[0].text + '\n<</SYS>>\n\n' }}"
    "{% elif m.role == 'user' %}{{ '[INST] ' }}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content[0].text + '</s> ' }}{% endif %}{% endfor %}"
)


def write(folder: Path) -> PreTrainedModel:
    size = tokenizer(folder, "<image>", bos_token="<s>", eos_token="</s>")
    template(folder, MISTRAL)
    LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=GRID
    ).save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        '{"processor_class": "LlavaNextProcessor", "patch_size": 8, "num_additional_image_tokens": 1, '
        '"vision_feature_select_strategy": "default"}'
    )
    config = LlavaNextConfig(
        vision_config=CLIP,
        text_config=language(folder, size, "mistral"),
        image_token_id=ids_of(folder, "<image>")[0],
        image_grid_pinpoints=GRID,
    )
    return LlavaNextForConditionalGeneration(config)


FAMILY = Family(
    "llava_next",
    write,
    picture="<image>" * 10,  # 4 of the whole picture, 4 of its tiles after unpadding, a line break for each of 2 rows
    golden=dict(
        single=f"[INST] {PICTURE}\nc? [/INST] [[red</s>]] ",
        two_turns=f"[INST] {PICTURE}\na? [/INST] [[no</s>]] [INST] b? [/INST] [[yes</s>]] ",
        text="[INST] hi [/INST] [[yo</s>]] ",
        later_picture=f"[INST] hi [/INST] [[yo</s>]] [INST] {PICTURE}\nc? [/INST] [[red</s>]] ",
        system="<<SYS>>\nbe good\n<</SYS>>\n\n[INST] hi [/INST] [[yo</s>]] ",
    ),
    parts=dict(
        vision=["model.vision_tower."],
        projector=["model.multi_modal_projector."],
        language=["model.language_model.", "lm_head.", "model.image_newline"],
    ),
    unread=r".*vision_tower\.(encoder\.layers\.2\.|post_layernorm\.).*",
)
