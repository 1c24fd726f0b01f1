"""LLaVA-1.5: its own template puts no end token after an answer, so ours, ``vicuna_v1``, is named."""

from __future__ import annotations

from pathlib import Path

from making import CLIP, PICTURE, Family, ids_of, language, template, tokenizer
from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

OWN = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role.upper() + ': ' }}{% endif %}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SYSTEM = (
    "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. "
)


def write(folder: Path) -> PreTrainedModel:
    size = tokenizer(folder, "<image>", bos_token="<s>", eos_token="</s>")
    template(folder, OWN)
    square = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square).save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        '{"processor_class": "LlavaProcessor", "patch_size": 8, "num_additional_image_tokens": 1, '
        '"vision_feature_select_strategy": "default"}'
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=CLIP, text_config=language(folder, size), image_token_id=ids_of(folder, "<image>")[0])
    )


FAMILY = Family(
    "llava",
    write,
    picture="<image>" * 4,
    golden=dict(
        single=f"{SYSTEM}USER: {PICTURE}\nc? ASSISTANT:[[ red</s>]]",
        two_turns=f"{SYSTEM}USER: {PICTURE}\na? ASSISTANT:[[ no</s>]]USER: b? ASSISTANT:[[ yes</s>]]",
        text=f"{SYSTEM}USER: hi ASSISTANT:[[ yo</s>]]",
        later_picture=f"{SYSTEM}USER: hi ASSISTANT:[[ yo</s>]]USER: {PICTURE}\nc? ASSISTANT:[[ red</s>]]",
        system="<s>be good USER: hi ASSISTANT:[[ yo</s>]]",
    ),
    parts=dict(
        vision=["model.vision_tower."],
        projector=["model.multi_modal_projector."],
        language=["model.language_model.", "lm_head."],
    ),
    unread=r".*vision_tower\.(encoder\.layers\.2\.|post_layernorm\.).*",  # features are those of the last layer but one
    options={"template": "vicuna_v1"},
)
