"""Greedy answers of a batch: what all prompts begin with is read once, and rows that have ended leave the batch.

The fast path beside transformers' ``generate``, which stays the reference: a test holds both to the same tokens. It is
for LLaVA models with a plain KV cache, where a row is its tokens and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LlavaForConditionalGeneration, PreTrainedModel
from transformers.cache_utils import DynamicLayer

_HARMLESS = {
    "bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "temperature", "top_k", "top_p", "typical_p", "min_p",
    "max_length", "max_new_tokens", "use_cache", "output_attentions", "output_hidden_states", "transformers_version",
    "_from_model_config",
}  # fmt: skip
"""What a generation config may say without changing which token is the likeliest, or where an answer ends here."""

READ = {"input_ids", "attention_mask", "pixel_values", "image_sizes"}
"""Inputs that :func:`greedy` knows how to divide."""

_LEAVE = 4
"""Rows leave once they are more than one in four: taking them out copies the cache."""


_WORTH = 64
"""Tokens that must be saved for a beginning to be read apart: that takes a pass over all weights of its own."""


def suits(model: PreTrainedModel | PeftModel) -> bool:
    """Whether :func:`greedy` gives what ``generate`` does: a LLaVA model whose cache holds keys and values alone, and a
    generation config that asks for nothing else, such as a penalty for repetition."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(plain, LlavaForConditionalGeneration):
        return False
    config: GenerationConfig = model.generation_config
    layers = DynamicCache(config=plain.config.get_text_config(decoder=True)).layers
    return config.to_diff_dict().keys() <= _HARMLESS and {type(layer) for layer in layers} == {DynamicLayer}


@torch.no_grad()
def greedy(
    model: PreTrainedModel | PeftModel, inputs: Mapping[str, Tensor], ends: Sequence[int], most: int, least: int = 1
) -> list[list[int]]:
    """The new tokens of each row of a left-padded batch, up to the one of ``ends`` that ended it.

    ``inputs``: input_ids and attention_mask [rows, length], and the pictures. ``most``, ``least``: new tokens.
    """
    ending = torch.tensor(ends, dtype=torch.long, device=inputs["input_ids"].device)
    told, mask, cache = _begun(model, inputs)
    rows = torch.arange(len(mask), device=mask.device)
    found: list[list[int]] = [[] for _ in rows]
    for step in range(most):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -told["input_ids"].shape[1] :]
        logits = model(
            **told, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits[:, -1]
        if step < least:
            logits[:, ending] = -torch.inf
        chosen = logits.argmax(-1)
        open_ones = [not found[row] or found[row][-1] not in ends for row in rows.tolist()]
        for row, token, still in zip(rows.tolist(), chosen.tolist(), open_ones, strict=True):
            if still:
                found[row].append(token)
        stay = torch.tensor([found[row][-1] not in ends for row in rows.tolist()], device=rows.device)
        if not stay.any():
            break
        if _LEAVE * int((~stay).sum()) > len(rows):
            rows, mask, chosen = rows[stay], mask[stay], chosen[stay]
            cache.batch_select_indices(stay.nonzero()[:, 0])
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        told = {"input_ids": chosen[:, None]}
    return found


def _begun(
    model: PreTrainedModel | PeftModel, inputs: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor, DynamicCache]:
    """What is left to be read, the mask over all of it, and the cache, in which the common beginning is already.

    The rows ``. S S a`` and ``S S b c`` begin with ``S S``, which is read as one row. Left of them are ``. a``, masked
    as ``S S . a``, and ``b c``: padding then stands behind the beginning, where the mask hides it as well as before.
    """
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    told = {name: tensor for name, tensor in inputs.items() if name != "attention_mask"}
    count = _common(ids, mask, model.config.image_token_id)
    if count * (len(ids) - 1) < _WORTH:
        return told, mask, cache
    longest = int(mask.sum(1).argmax())
    start = ids.shape[1] - int(mask[longest].sum())
    shared = ids[longest : longest + 1, start : start + count]
    model(input_ids=shared, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(ids))
    begun = (mask.cumsum(1) > count).long()[:, start + count :]
    # What stands at masked places is never attended to, but a picture's token there would claim a picture.
    told["input_ids"] = ids[:, start + count :]
    return told, torch.cat([mask.new_ones(len(ids), count), begun], dim=1), cache


def _common(ids: Tensor, mask: Tensor, picture: int) -> int:
    """How many tokens all rows begin with, before any picture and with something left behind them; 0 for one row."""
    if len(ids) == 1:
        return 0
    lengths = mask.sum(1).tolist()
    rows = [row[-length:] for row, length in zip(ids.tolist(), lengths, strict=True)]
    count = 0
    for tokens in zip(*(row[:-1] for row in rows), strict=False):
        if len(set(tokens)) > 1 or tokens[0] == picture:
            break
        count += 1
    return count
