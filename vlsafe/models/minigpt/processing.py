"""What MiniGPT-v2 reads: pictures squeezed to a square, and Llama-2's instruction format around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from vlsafe.models.minigpt.configuration import MiniGPTv2Config

IMAGE_TOKEN = "<ImageHere>"
TEMPLATE = Path(__file__).with_name("template.jinja")
"""``[INST] <Img><ImageHere></Img> question [/INST] answer</s>``. No ``<s>`` stands in it: the tokenizer puts it first,
and so the first word keeps the white space mark that it had in training. A system prompt goes where Llama-2 has it."""


class MiniGPTv2Processor(ProcessorMixin):
    """Tokenizer and image processor in one. ``image_seq_length``: how many ``<ImageHere>`` one becomes."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **_: Any,
    ) -> None:
        self.image_seq_length = image_seq_length
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        """Called by transformers for every placeholder in the text."""
        return self.image_token * self.image_seq_length


def processor_of(tokenizer: PreTrainedTokenizerBase, config: MiniGPTv2Config) -> MiniGPTv2Processor:
    """The processor that fits ``config``; adds the picture token to ``tokenizer``.

    Pictures are squeezed to the square with bicubic interpolation and normalised with CLIP's constants, as the
    MiniGPT-4 repository's ``blip2_image_eval`` does.
    """
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    side = config.vision_config.image_size
    return MiniGPTv2Processor(
        BlipImageProcessorPil(size={"height": side, "width": side}),
        tokenizer,
        image_seq_length=config.image_seq_length,
        chat_template=_template_for(tokenizer),
    )


def _template_for(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that gives the tokens of training.

    There the text after a picture was tokenised on its own and so began with a white space mark. Some versions of
    Llama's tokenizer leave that mark out after a special token; for those a space is put in its place.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    alone = tokenizer("</Img>", add_special_tokens=False)["input_ids"]
    spaced = tokenizer(f"{IMAGE_TOKEN} </Img>", add_special_tokens=False)["input_ids"][1:]
    plain = tokenizer(f"{IMAGE_TOKEN}</Img>", add_special_tokens=False)["input_ids"][1:]
    return template.replace(f"{IMAGE_TOKEN}</Img>", f"{IMAGE_TOKEN} </Img>") if plain != alone == spaced else template
