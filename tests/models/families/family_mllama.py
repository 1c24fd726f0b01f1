"""Llama 3.2 Vision (Mllama): a picture is one token, and is read through cross-attention."""

from __future__ import annotations

from pathlib import Path

from making import PICTURE, Family, ids_of, language, template, tokenizer
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessorPil, PreTrainedModel

OWN = (  # a default system turn, but not beside a picture
    "{{ bos_token }}{% set seen = namespace(picture=false) %}"
    "{% for m in messages %}{% for c in m.content if c.type == 'image' %}{% set seen.picture = true %}{% endfor %}"
    "{% endfor %}{% if messages[0].role != 'system' and not seen.picture %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday is Monday.<|eot_id|>' }}{% endif %}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}{% for c in m.content %}"
    "{% if c.type == 'image' %}{{ '<|image|>' }}{% else %}{{ c.text | trim }}{% endif %}{% endfor %}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def write(folder: Path) -> PreTrainedModel:
    size = tokenizer(
        folder, "<|image|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>",
        bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
    )  # fmt: skip
    template(folder, OWN)
    MllamaImageProcessorPil(size={"height": 16, "width": 16}, max_image_tiles=4).save_pretrained(folder)
    sight = dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=16, patch_size=8, max_num_tiles=4, intermediate_layers_indices=[1], vision_output_dim=32,
    )  # fmt: skip
    text = language(folder, size, "mllama_text_model", num_hidden_layers=3, cross_attention_layers=[1])
    config = MllamaConfig(vision_config=sight, text_config=text, image_token_index=ids_of(folder, "<|image|>")[0])
    return MllamaForConditionalGeneration(config)


def _turns(*turns: tuple[str, str]) -> str:
    user, assistant = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
    return "".join(f"{user}{asked}<|eot_id|>{assistant}[[{answer}<|eot_id|>]]" for asked, answer in turns)


def _system(text: str) -> str:
    return f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>"


FAMILY = Family(
    "mllama",
    write,
    picture="<|image|>",
    golden=dict(
        single="<|begin_of_text|>" + _turns((f"{PICTURE}c?", "red")),
        two_turns="<|begin_of_text|>" + _turns((f"{PICTURE}a?", "no"), ("b?", "yes")),
        text=_system("Today is Monday.") + _turns(("hi", "yo")),
        later_picture="<|begin_of_text|>" + _turns(("hi", "yo"), (f"{PICTURE}c?", "red")),
        system=_system("be good") + _turns(("hi", "yo")),
    ),
    parts=dict(
        vision=["model.vision_model."],
        projector=["model.multi_modal_projector."],
        language=["model.language_model.", "lm_head."],
    ),
)
