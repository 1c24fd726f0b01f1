"""Every family with the attention kernels that it gets on a GPU, by stand-ins with the checks of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flash_kernels import GPU, StandIn, flash_installed, varlen_on_gpu
from making import Family
from test_families import conversations, mixed, opened
from tiny import ask, talk
from torch import Tensor
from transformers import PreTrainedModel

from vlsafe import PretrainedVLLM
from vlsafe.answering import Decoding
from vlsafe.conversation import ImageRef, assistant, user
from vlsafe.data.collate import Batch, Collate
from vlsafe.data.encoding import Encoding
from vlsafe.errors import ConfigError
from vlsafe.models.responder import ModelResponder
from vlsafe.objectives.sft import SFT
from vlsafe.strategies.attention import Runtime

FLASH, SDPA = "flash_attention_2", "sdpa"
CHOSEN = {
    "paligemma": (SDPA, FLASH),  # reads its prompt in both directions
    "gemma3": (SDPA, FLASH),  # reads pictures in both directions
    "mllama": (SDPA, SDPA),  # transformers has no flash attention for it
}
"""Family -> kernels of language model and vision encoder on a GPU in bfloat16 with flash-attn; else flash for both."""
CPU = Runtime(torch.device("cpu"), torch.float32)


def loaded(backbone: PretrainedVLLM, runtime: Runtime = GPU) -> PreTrainedModel:
    backbone.attention = "auto"
    return backbone.load(runtime).eval()


@pytest.fixture(scope="session")
def backbone(family: Family, checkpoint: Path) -> PretrainedVLLM:
    return opened(checkpoint, family)


@pytest.fixture(scope="session")
def plain(backbone: PretrainedVLLM) -> PreTrainedModel:
    """The reference: SDPA on a CPU."""
    return loaded(backbone, CPU)


@pytest.fixture(scope="session")
def batch(backbone: PretrainedVLLM, pictures: dict[str, ImageRef]) -> Batch:
    return mixed(backbone, pictures)


def row(backbone: PretrainedVLLM, pictures: dict[str, ImageRef]) -> Batch:
    """The samples of ``batch`` without padding."""
    encoding, talks = Encoding(backbone.processor), conversations(pictures["red"])
    samples = [*talks.values(), ask("what?", "blue", pictures["wide"])]
    return Collate(0, padding_free=True)([encoding.sample(one) for one in samples])


def steps(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each sample, and gradients."""
    model.zero_grad()
    sums = SFT()(model, batch)
    sums.loss.backward()
    return sums.sample_loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_each_part_gets_the_kernel_that_it_can_run(family: Family, backbone: PretrainedVLLM) -> None:
    with flash_installed():
        model = loaded(backbone)
    language, vision = CHOSEN.get(family.name, (FLASH, FLASH))
    assert backbone.kernels is not None and (backbone.kernels.language, backbone.kernels.vision) == (language, vision)
    assert (backbone.kernels.because != "") == (language != FLASH)
    text = "vlsafe_segmented_sdpa" if language == SDPA and backbone.padding_free else language
    parts = {"text_config": text, "vision_config": vision}
    assert {name: getattr(model.config, name)._attn_implementation for name in parts} == parts
    assert model.get_decoder().config._attn_implementation == text
    assert model.get_encoder("image").config._attn_implementation == vision


@pytest.mark.parametrize("runtime", [CPU, Runtime(torch.device("cuda"), torch.float32)], ids=["cpu", "float32"])
def test_no_part_gets_flash_on_a_cpu_or_in_float32(backbone: PretrainedVLLM, runtime: Runtime) -> None:
    with flash_installed():
        loaded(backbone, runtime)
    assert backbone.kernels is not None and (backbone.kernels.language, backbone.kernels.vision) == (SDPA, SDPA)


@pytest.mark.parametrize("kernels", [flash_installed, varlen_on_gpu])
def test_losses_and_gradients_are_those_of_padded_sdpa(
    kernels: Callable[..., AbstractContextManager[StandIn]],
    family: Family,
    backbone: PretrainedVLLM,
    plain: PreTrainedModel,
    batch: Batch,
    pictures: dict[str, ImageRef],
) -> None:
    """Padded, and in one row: the arguments are those that the kernels check, and mean what they should."""
    losses, gradients = steps(plain, batch)
    layouts = [batch, *([row(backbone, pictures)] if backbone.padding_free else [])]
    with kernels(exact=True) as kernel:
        model = loaded(backbone)
        for layout in layouts:
            found, theirs = steps(model, layout)
            torch.testing.assert_close(found, losses, atol=2e-5, rtol=2e-5)
            assert theirs.keys() == gradients.keys()
            for name, gradient in theirs.items():
                torch.testing.assert_close(gradient, gradients[name], atol=1e-4, rtol=1e-4, msg=name)
    if kernels is flash_installed:
        assert bool(kernel.calls) == (CHOSEN.get(family.name) != (SDPA, SDPA))
    else:  # Mistral's layers see a window, which keeps the mask of transformers
        assert bool(kernel.calls) == (backbone.padding_free and family.name != "llava_next")


@pytest.mark.parametrize("weights", ["bfloat16", "float32"])
def test_the_kernel_is_handed_half_precision(
    weights: str, family: Family, checkpoint: Path, plain: PreTrainedModel, batch: Batch, pictures: dict[str, ImageRef]
) -> None:
    """Weights in bfloat16, or in float32 under autocast, as fully tuned ones are: by flash-attn and by torch's own."""
    losses, _ = steps(plain, batch)
    own = PretrainedVLLM(str(checkpoint), dtype=weights, **family.options)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=weights == "float32", cache_enabled=False)
    for kernels in (flash_installed, varlen_on_gpu):
        with kernels() as kernel:
            model = loaded(own)
            for layout in (batch, row(own, pictures)) if own.padding_free else (batch,):
                inputs = {
                    name: each.to(model.dtype) if torch.is_tensor(each) and each.is_floating_point() else each
                    for name, each in layout.inputs.items()
                }
                with autocast:
                    found, gradients = steps(model, replace(layout, inputs=inputs))
                assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
                torch.testing.assert_close(found.float(), losses, atol=0.3, rtol=0.05)
        assert kernels is varlen_on_gpu or bool(kernel.calls) == (CHOSEN.get(family.name) != (SDPA, SDPA))


def moved(model: PreTrainedModel, batch: Batch) -> float:
    """How far logits before the last letter of each answer move when that letter is another one."""
    labels = batch.labels
    last = [int((labels[number] != -100).nonzero()[-1]) for number in range(len(labels))]
    changed = batch.inputs["input_ids"].clone()
    for number, place in enumerate(last):
        changed[number, place] -= 1
    with torch.inference_mode():
        before = model(**batch.inputs).logits
        after = model(**batch.inputs | {"input_ids": changed}).logits
    earlier = [(before[number, :place] - after[number, :place]).abs().max() for number, place in enumerate(last)]
    assert all(bool((before[n, place] != after[n, place]).any()) for n, place in enumerate(last))
    return float(max(earlier))


def test_the_last_letter_of_an_answer_moves_no_earlier_logit(backbone: PretrainedVLLM, batch: Batch) -> None:
    with flash_installed(exact=True):
        assert moved(loaded(backbone), batch) < 1e-5


@pytest.mark.parametrize("family", ["paligemma", "gemma3", "mllama"], indirect=True)
def test_asking_for_flash_is_refused_before_weights_load(family: Family, checkpoint: Path, tmp_path: Path) -> None:
    """There are none in this folder."""
    opened(checkpoint, family).config.save_pretrained(tmp_path)
    reason = "no flash attention for Mllama" if family.name == "mllama" else f"{family.name} reads pictures or prompts"
    backbone = PretrainedVLLM(str(tmp_path), attention=FLASH)
    with flash_installed(), pytest.raises(ConfigError, match=rf"'{FLASH}' cannot run here: .*{reason}.*use 'sdpa'"):
        backbone.load(GPU)


@pytest.mark.parametrize("family", ["paligemma", "gemma3"], indirect=True)
def test_flash_would_read_these_differently(
    family: Family, backbone: PretrainedVLLM, plain: PreTrainedModel, batch: Batch
) -> None:
    """Why they are refused: transformers drops their mask there, and PaliGemma's tokens would see their answer. The day
    it no longer does, this fails."""
    with flash_installed(exact=True), torch.inference_mode():
        model = loaded(backbone)
        model.get_decoder().set_attn_implementation(FLASH)
        seen = batch.inputs["attention_mask"].bool()
        assert (model(**batch.inputs).logits - plain(**batch.inputs).logits)[seen].abs().max() > 0.1
        assert (moved(model, batch) > 0.1) == (family.name == "paligemma")


def test_answers_are_those_of_sdpa(
    backbone: PretrainedVLLM, plain: PreTrainedModel, pictures: dict[str, ImageRef]
) -> None:
    """Prompts of several lengths in one batch, and what they begin with read once: caches and left padding."""
    red, wide = pictures["red"], pictures["wide"]
    long = "tell me more about this and that, and about all the rest of it, so that it need not be read again, "
    prompts = [talk(user(red, "what?")), talk(user("hi")), talk(user(wide, "a?"), assistant("no"), user("why not?"))]
    prompts += [talk(user(f"{long}{end}")) for end in ("please", "now", "or not")]

    def answers(model: PreTrainedModel) -> list[str]:
        told = dict(ModelResponder(model, backbone, len(prompts)).respond(prompts, Decoding(6, min_new_tokens=6)))
        assert [told[number].error for number in range(len(prompts))] == [""] * len(prompts)
        return [told[number].text for number in range(len(prompts))]

    with flash_installed(exact=True):
        found = answers(loaded(backbone))
    assert found == answers(plain)
