"""MiniGPT-v2, whose classes are ours: four neighbouring patches become one token, in Llama-2's instruction format."""

from __future__ import annotations

from pathlib import Path

from making import PICTURE, Family, language, tokenizer
from transformers import AutoTokenizer, Blip2VisionConfig, LlamaConfig, PreTrainedModel

from vlsafe.models.minigpt import MiniGPTv2Config, MiniGPTv2ForConditionalGeneration
from vlsafe.models.minigpt.processing import processor_of

SIGHT = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
)


def write(folder: Path) -> PreTrainedModel:
    size = tokenizer(folder, "<ImageHere>", bos_token="<s>", eos_token="</s>")
    text = AutoTokenizer.from_pretrained(folder)
    config = MiniGPTv2Config(
        vision_config=Blip2VisionConfig(**SIGHT), image_token_id=text.convert_tokens_to_ids("<ImageHere>")
    )
    processor_of(text, config).save_pretrained(folder)
    fields = {name: value for name, value in language(folder, size).items() if name != "model_type"}
    config.text_config = LlamaConfig(**fields)
    return MiniGPTv2ForConditionalGeneration(config)


SHOWN = f"<Img>{PICTURE}</Img> "

FAMILY = Family(
    "minigpt_v2",
    write,
    picture="<ImageHere>" * 4,  # 16 patches
    golden=dict(
        single=f"<s>[INST] {SHOWN}c? [/INST][[ red</s>]]",
        two_turns=f"<s>[INST] {SHOWN}a? [/INST][[ no</s>]]<s>[INST] b? [/INST][[ yes</s>]]",
        text="<s>[INST] hi [/INST][[ yo</s>]]",
        later_picture=f"<s>[INST] hi [/INST][[ yo</s>]]<s>[INST] {SHOWN}c? [/INST][[ red</s>]]",
        system="<s>[INST] <<SYS>>\nbe good\n<</SYS>>\n\nhi [/INST][[ yo</s>]]",
    ),
    parts=dict(
        vision=["model.vision_tower."],
        projector=["model.multi_modal_projector."],
        language=["model.language_model.", "lm_head."],
    ),
)
