"""LLaVA-OneVision: tiles of SigLIP features, Qwen2; its processor wants a video processor, which is left out."""

from __future__ import annotations

from pathlib import Path

from making import PICTURE, SIGLIP, Family, ids_of, language, template, tokenizer
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    PreTrainedModel,
)

GRID = [[16, 16], [16, 32], [32, 16], [32, 32]]
OWN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ '\n' + c.text }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write(folder: Path) -> PreTrainedModel:
    size = tokenizer(folder, "<image>", "<video>", "<|im_start|>", eos_token="<|im_end|>")
    template(folder, OWN)
    LlavaOnevisionImageProcessorPil(size={"height": 16, "width": 16}, image_grid_pinpoints=GRID).save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        '{"processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 4, '
        '"vision_feature_select_strategy": "full"}'
    )
    image, video = ids_of(folder, "<image>", "<video>")
    config = LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config=language(folder, size, "qwen2"),
        image_token_id=image,
        video_token_id=video,
        image_grid_pinpoints=GRID,
        vision_feature_layer=-1,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def _turns(*turns: tuple[str, str]) -> str:
    asked = "<|im_start|>user {}<|im_end|><|im_start|>assistant \n[[{}<|im_end|>]]"
    return "".join(asked.format(*turn) for turn in turns)


FAMILY = Family(
    "llava_onevision",
    write,
    picture="<image>" * 10,  # 4 of the whole picture, 4 of its one tile, a line break for each of 2 rows
    golden=dict(
        single=_turns((f"{PICTURE}\nc?", "red")),
        two_turns=_turns((f"{PICTURE}\na?", "no"), ("\nb?", "yes")),
        text=_turns(("\nhi", "yo")),
        later_picture=_turns(("\nhi", "yo"), (f"{PICTURE}\nc?", "red")),
        system="<|im_start|>system \nbe good<|im_end|>" + _turns(("\nhi", "yo")),
    ),
    parts=dict(
        vision=["model.vision_tower."],
        projector=["model.multi_modal_projector."],
        language=["model.language_model.", "lm_head.", "model.image_newline"],
    ),
    unread=r".*vision_tower\.(post_layernorm|head)\..*",
)
