"""InternVL 2.5 and 3 in Hugging Face form: tiles of pixel-shuffled patches."""

from __future__ import annotations

from pathlib import Path

from making import PICTURE, Family, ids_of, language, template, tokenizer
from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration, PreTrainedModel

OWN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for c in m.content %}"
    "{% if c.type == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NAMED = dict(
    start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
)


def write(folder: Path) -> PreTrainedModel:
    size = tokenizer(folder, "<|im_start|>", named=NAMED, eos_token="<|im_end|>")
    template(folder, OWN)
    GotOcr2ImageProcessorPil(size={"height": 16, "width": 16}, max_patches=4).save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "InternVLProcessor", "image_seq_length": 1}')
    sight = dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=[16, 16],
        patch_size=[8, 8],
    )  # fmt: skip
    config = InternVLConfig(
        vision_config=sight, text_config=language(folder, size, "qwen2"), image_seq_length=1,
        image_token_id=ids_of(folder, "<IMG_CONTEXT>")[0],
    )  # fmt: skip
    return InternVLForConditionalGeneration(config)


def _turns(*turns: tuple[str, str]) -> str:
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n[[{}<|im_end|>]]\n"
    return "".join(asked.format(*turn) for turn in turns)


FAMILY = Family(
    "internvl",
    write,
    picture="<img><IMG_CONTEXT></img>",  # four patches folded into one
    golden=dict(
        single=_turns((f"{PICTURE}\nc?", "red")),
        two_turns=_turns((f"{PICTURE}\na?", "no"), ("b?", "yes")),
        text=_turns(("hi", "yo")),
        later_picture=_turns(("hi", "yo"), (f"{PICTURE}\nc?", "red")),
        system="<|im_start|>system\nbe good<|im_end|>\n" + _turns(("hi", "yo")),
    ),
    parts=dict(
        vision=["model.vision_tower."],
        projector=["model.multi_modal_projector."],
        language=["model.language_model.", "lm_head."],
    ),
)
