"""PaliGemma, which has no chat template and reads its prompt in both directions, and Gemma 3."""

from __future__ import annotations

from pathlib import Path

from making import PICTURE, SIGLIP, Family, ids_of, language, template, tokenizer
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
    SiglipImageProcessorPil,
)

OWN = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content[0].text + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{% if loop.first %}{{ first }}{% endif %}{% for c in m.content %}"
    "{% if c.type == 'image' %}{{ '<start_of_image>' }}{% else %}{{ c.text | trim }}{% endif %}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
NAMED = dict(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")


def write_paligemma(folder: Path) -> PreTrainedModel:
    size = tokenizer(folder, named={"image_token": "<image>"}, bos_token="<bos>", eos_token="<eos>")
    SiglipImageProcessorPil(size={"height": 16, "width": 16}, image_seq_length=4).save_pretrained(folder)
    config = PaliGemmaConfig(
        vision_config=SIGLIP | {"vision_use_head": False, "projection_dim": 16},
        text_config=language(folder, size, "gemma", head_dim=8),
        image_token_id=ids_of(folder, "<image>")[0],
        projection_dim=16,
    )
    return PaliGemmaForConditionalGeneration(config)


def write_gemma3(folder: Path) -> PreTrainedModel:
    size = tokenizer(folder, "<start_of_turn>", "<end_of_turn>", named=NAMED, bos_token="<bos>", eos_token="<eos>")
    template(folder, OWN)
    Gemma3ImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "Gemma3Processor", "image_seq_length": 4}')
    image, start, end = ids_of(folder, *NAMED.values())
    text = language(
        folder, size, "gemma3_text", head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=SIGLIP | {"image_size": 32, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_id=image,
        boi_token_id=start,
        eoi_token_id=end,
    )
    return Gemma3ForConditionalGeneration(config)


def _turns(*turns: tuple[str, str]) -> str:
    asked = "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n[[{}<end_of_turn>]]\n"
    return "".join(asked.format(*turn) for turn in turns)


PARTS = dict(
    vision=["model.vision_tower."],
    projector=["model.multi_modal_projector."],
    language=["model.language_model.", "lm_head."],
)

PALIGEMMA = Family(
    "paligemma",
    write_paligemma,
    picture="<image>" * 4,
    golden=dict(  # pictures stand before <bos>, whichever turn shows them
        single=f"{PICTURE}<bos>c?\n[[red<eos>]]",
        two_turns=f"{PICTURE}<bos>a?\n[[no<eos>]]b?\n[[yes<eos>]]",
        text="<bos>hi\n[[yo<eos>]]",
        later_picture=f"{PICTURE}<bos>hi\n[[yo<eos>]]c?\n[[red<eos>]]",
        system="<bos>be good\nhi\n[[yo<eos>]]",
    ),
    parts=PARTS,
)
GEMMA3 = Family(
    "gemma3",
    write_gemma3,
    picture="\n\n<start_of_image>" + "<image_soft_token>" * 4 + "<end_of_image>\n\n",
    golden=dict(
        single="<bos>" + _turns((f"{PICTURE}c?", "red")),
        two_turns="<bos>" + _turns((f"{PICTURE}a?", "no"), ("b?", "yes")),
        text="<bos>" + _turns(("hi", "yo")),
        later_picture="<bos>" + _turns(("hi", "yo"), (f"{PICTURE}c?", "red")),
        system="<bos>" + _turns(("be good\n\nhi", "yo")),
    ),
    parts=PARTS,
)
