"""Idefics3 (SmolVLM 1) and SmolVLM 2: a grid of tiles, each named by its row and column, and the whole picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from making import PICTURE, SIGLIP, Family, ids_of, language, template, tokenizer
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    PreTrainedModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

OWN = (
    "{{ '<|im_start|>' }}{% for m in messages %}{{ m.role | capitalize }}"
    "{% if m.content[0].type == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for c in m.content %}{% if c.type == 'image' %}{{ '<image>' }}{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]


def _writer(
    pictures: type, config: type, kind: Callable[..., PreTrainedModel], name: str
) -> Callable[[Path], PreTrainedModel]:
    def write(folder: Path) -> PreTrainedModel:
        size = tokenizer(
            folder, "<image>", "<fake_token_around_image>", "<global-img>", "<|im_start|>", *TILES,
            eos_token="<end_of_utterance>",
        )  # fmt: skip
        template(folder, OWN)
        pictures(size={"longest_edge": 32}, max_image_size={"longest_edge": 16}).save_pretrained(folder)
        (folder / "processor_config.json").write_text(f'{{"processor_class": "{name}", "image_seq_len": 1}}')
        sight = {key: value for key, value in SIGLIP.items() if key != "model_type"}
        made = config(
            vision_config=sight, text_config=language(folder, size), scale_factor=2, pad_token_id=0,
            image_token_id=ids_of(folder, "<image>")[0],
        )  # fmt: skip
        return kind(made)

    return write


def _turns(*turns: tuple[str, str]) -> str:
    asked = "User:{}<end_of_utterance>\nAssistant:[[ {}<end_of_utterance>]]\n"
    return "".join(asked.format(*turn) for turn in turns)


FAKE = "<fake_token_around_image>"
PIECE = (
    f"{FAKE}<row_1_col_1><image>{FAKE}<row_1_col_2><image>\n{FAKE}<row_2_col_1><image>{FAKE}<row_2_col_2><image>\n"
    f"\n{FAKE}<global-img><image>{FAKE}"
)
GOLDEN = dict(
    single="<|im_start|>" + _turns((f"{PICTURE}c?", "red")),
    two_turns="<|im_start|>" + _turns((f"{PICTURE}a?", "no"), (" b?", "yes")),
    text="<|im_start|>" + _turns((" hi", "yo")),
    later_picture="<|im_start|>" + _turns((" hi", "yo"), (f"{PICTURE}c?", "red")),
    system="<|im_start|>System: be good<end_of_utterance>\n" + _turns((" hi", "yo")),
)
PARTS = dict(vision=["model.vision_model."], projector=["model.connector."], language=["model.text_model.", "lm_head."])

IDEFICS3 = Family(
    "idefics3",
    _writer(Idefics3ImageProcessorPil, Idefics3Config, Idefics3ForConditionalGeneration, "Idefics3Processor"),
    PIECE, GOLDEN, PARTS,
)  # fmt: skip
SMOLVLM = Family(
    "smolvlm",
    _writer(SmolVLMImageProcessorPil, SmolVLMConfig, SmolVLMForConditionalGeneration, "SmolVLMProcessor"),
    PIECE, GOLDEN, PARTS,
)  # fmt: skip
