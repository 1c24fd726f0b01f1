"""Processors as vlsafe uses them: text and pictures, laid out by the chat template alone.

Each keeps the name of the class of transformers that it stands for, because that name is written into a saved
processor and is how plain transformers finds its own class again.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, ProcessorMixin


def image_only(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """``kind`` without its video processor, which needs torchvision and which no sample of ours needs."""
    attributes = [name for name in kind.get_attributes() if name != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: attributes)})


def keep_spacing(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a saved tokenizer split text as this one does.

    Llama's puts its white space mark after a control token or not by its argument ``legacy``, which transformers does
    not write down; read back without it, the words after ``</s>`` would get other ids than in training.
    """
    if isinstance(tokenizer, LlamaTokenizer):
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy


class PaliGemmaProcessor(transformers.PaliGemmaProcessor):
    """Leaves a rendered text as it is: transformers' own puts ``<bos>`` and a line break into it, and refuses a text
    without a picture.

    PaliGemma reads its prompt in both directions and writes its answer in one (Beyer et al. 2024, arXiv 2407.07726),
    so :class:`vlsafe.data.encoding.Encoding` adds ``token_type_ids``: 0 before the first answer, 1 from there on.
    """

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        return ProcessorMixin.__call__(self, images=images, text=text, **kwargs)

    def prepare_inputs_layout(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        return ProcessorMixin.prepare_inputs_layout(self, images=images, text=text, **kwargs)

    def validate_inputs(self, images: Any = None, text: Any = None, **kwargs: Any) -> None:
        ProcessorMixin.validate_inputs(self, images=images, text=text, **kwargs)


class SmolVLMProcessor(image_only(transformers.SmolVLMProcessor)):  # type: ignore[misc]
    """Without video, and so without num2words, which transformers' own wants for the words around a video."""

    def __init__(
        self, image_processor: Any, tokenizer: Any, image_seq_len: int = 169, chat_template: str | None = None
    ) -> None:
        self.fake_image_token, self.image_token = "<fake_token_around_image>", "<image>"
        self.end_of_utterance_token, self.global_image_token = "<end_of_utterance>", "<global-img>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.image_seq_len = image_seq_len
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        return ProcessorMixin.apply_chat_template(self, conversation, *args, **kwargs)
