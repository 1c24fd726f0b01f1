"""What MiniGPT-v2 reads: pictures squeezed to a square, and Llama-2's instruction format around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from vlsafe.data.chat import fitted_template
from vlsafe.models.minigpt.configuration import MiniGPTv2Config

IMAGE_TOKEN = "<ImageHere>"
TEMPLATE = Path(__file__).with_name("template.jinja")
"""``<s>[INST] <Img><ImageHere></Img> question [/INST] answer</s>``, every turn with its ``<s>``, as the repository's
``tokenize_conversation`` and ``CONV_VISION_minigptv2`` have it. A system prompt goes where Llama-2 has it. The
repository's data classes leave two spaces before ``[/INST]``, its chat one: ours is that of the chat."""


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
        chat_template=fitted_template(TEMPLATE.read_text(encoding="utf-8"), tokenizer),
    )
