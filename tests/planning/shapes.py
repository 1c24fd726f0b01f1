"""LLaVA-1.5-7B in shape: its published config, and a tokenizer of a few hundred tokens in place of Llama's."""

from __future__ import annotations

from pathlib import Path

from tiny import save_tokenizer
from tokenizers import AddedToken
from transformers import AutoTokenizer, LlavaConfig, LlavaProcessor

from vlsafe.models.encoders.clip import CLIP


def llava_7b(folder: Path) -> Path:
    """Config and processor files; no weights. The text config's other sizes are Llama's defaults, those of 7B."""
    text = dict(model_type="llama", vocab_size=32064, max_position_embeddings=4096)
    LlavaConfig(text_config=text).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(folder / "characters"))
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    pictures = CLIP(dict(image_size=336, patch_size=14)).image_processor("pad")
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder
