"""The same six checks for every family, on a tiny random checkpoint laid out as on the hub; conftest prints them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from making import Family, golden
from peft import PeftModel
from tiny import ask, talk
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlsafe import PretrainedVLLM, SafetyFineTuning
from vlsafe.answering import Decoding
from vlsafe.conversation import Conversation, ImageRef, Turn, assistant, user
from vlsafe.data.collate import Batch, Collate
from vlsafe.data.encoding import IGNORE, Encoded, Encoding
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components, Tuning, original_name
from vlsafe.models.export import export_adapter, export_model
from vlsafe.models.responder import ModelResponder
from vlsafe.models.summary import parameter_groups
from vlsafe.objectives.sft import SFT
from vlsafe.strategies.attention import Runtime

FULL, LORA, FROZEN = Tuning("full", 1e-2), Tuning("lora", 1e-2, rank=2), Tuning()
TABLES = {
    "full": Components(FULL, FULL, FULL),
    "posthoc": Components(FROZEN, FULL, LORA),
    "language lora": Components(FROZEN, FROZEN, LORA),
}


@pytest.fixture(scope="session")
def backbone(family: Family, checkpoint: Path) -> PretrainedVLLM:
    return opened(checkpoint, family)


def opened(checkpoint: Path, family: Family) -> PretrainedVLLM:
    return PretrainedVLLM(str(checkpoint), dtype="float32", attention="sdpa", **family.options)


def conversations(picture: ImageRef) -> dict[str, Conversation]:
    """The conversations whose goldens every family file holds."""
    shown, hi = user(picture, "c?"), (user("hi"), assistant("yo"))
    return {
        "single": talk(shown, assistant("red")),
        "two_turns": talk(user(picture, "a?"), assistant("no"), user("b?"), assistant("yes")),
        "text": talk(*hi),
        "later_picture": talk(*hi, shown, assistant("red")),
        "system": talk(Turn("system", ("be good",)), *hi),
    }


def mixed(backbone: PretrainedVLLM, pictures: dict[str, ImageRef]) -> Batch:
    """A training batch of pictures of different sizes, text only, and several turns."""
    encoding = Encoding(backbone.processor)
    talks = [*conversations(pictures["red"]).values(), ask("what?", "blue", pictures["wide"])]
    return Collate(backbone.processor.tokenizer.pad_token_id)([encoding.sample(one) for one in talks])


@pytest.mark.parametrize("case", ["single", "two_turns", "text", "later_picture", "system"])
def test_ids_and_labels_are_those_written_by_hand(
    case: str, family: Family, backbone: PretrainedVLLM, pictures: dict[str, ImageRef]
) -> None:
    tokenizer = backbone.processor.tokenizer
    ids, labels = golden(family, case, tokenizer.get_vocab())
    encoded = Encoding(backbone.processor).sample(conversations(pictures["red"])[case])
    assert tokenizer.decode(encoded.input_ids) == tokenizer.decode(ids)  # the readable half of the next line
    assert encoded.input_ids.tolist() == ids
    assert encoded.labels.tolist() == labels


def test_the_end_of_a_turn_stays_supervised_where_it_is_the_padding_token(
    family: Family, checkpoint: Path, pictures: dict[str, ImageRef]
) -> None:
    backbone = opened(checkpoint, family)
    tokenizer = backbone.processor.tokenizer
    ids, labels = golden(family, "text", tokenizer.get_vocab())
    end = [label for label in labels if label != IGNORE][-1]
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end)
    encoding, talks = Encoding(backbone.processor), conversations(pictures["red"])
    batch = Collate(tokenizer.pad_token_id)([encoding.sample(talks[case]) for case in ("text", "later_picture")])
    padding = batch.labels.shape[1] - len(ids)
    assert padding > 0 and batch.inputs["input_ids"][0].tolist() == ids + [end] * padding
    assert batch.labels[0].tolist() == labels + [IGNORE] * padding
    assert batch.inputs["attention_mask"][0].tolist() == [1] * len(ids) + [0] * padding


def test_the_loss_is_hugging_faces_own(
    family: Family, backbone: PretrainedVLLM, checkpoint: Path, pictures: dict[str, ImageRef]
) -> None:
    """Theirs of a model loaded without us: of a batch, and of every sample alone."""
    model = backbone.load_model().eval()
    plain = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa")
    batch = mixed(backbone, pictures)
    encoding = Encoding(backbone.processor)
    with torch.inference_mode():
        sums = SFT()(model, batch)
        for number, conversation in enumerate(conversations(pictures["red"]).values()):
            one = Collate(0)([encoding.sample(conversation)])
            theirs = plain(**one.inputs, labels=one.labels).loss
            ours = sums.sample_loss[number] / sums.sample_tokens[number]
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
        whole = model(**batch.inputs, labels=batch.labels).loss
    torch.testing.assert_close(sums.loss / sums.sample_tokens.sum(), whole, atol=2e-5, rtol=2e-5)


def test_a_blank_image_reaches_every_parameter_and_changes_nothing(backbone: PretrainedVLLM) -> None:
    """Of a batch without images: the same loss of every sample, and a gradient for all that images read."""
    model, encoding = backbone.load_model().eval(), Encoding(backbone.processor)
    batch = Collate(0)([encoding.sample(talk(user("hi"), assistant(answer))) for answer in ("yo", "who is there?")])
    inputs, zero = backbone.with_blank_image(model, batch.inputs)
    plain, sums = (SFT()(model, replace(batch, inputs=given)) for given in (batch.inputs, inputs))
    assert float(zero) == 0
    torch.testing.assert_close(sums.sample_loss, plain.sample_loss, atol=1e-6, rtol=1e-6)
    (sums.loss + zero).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == backbone.unread(model)


def test_without_padding_samples_do_not_see_each_other(
    family: Family, backbone: PretrainedVLLM, pictures: dict[str, ImageRef]
) -> None:
    """Loss of each sample and gradients in one row, against padded rows; or a refusal, where a token has a kind."""
    runtime = Runtime(torch.device("cpu"), torch.float32)
    model, encoding = backbone.load(runtime).eval(), Encoding(backbone.processor)
    talks = [*conversations(pictures["red"]).values(), ask("what?", "blue", pictures["wide"])]
    encoded = [encoding.sample(one) for one in talks]
    if not backbone.padding_free:
        with pytest.raises(ConfigError, match="padding_free cannot lay out"):
            Collate(0, padding_free=True)(encoded)
        return
    sums = {}
    for free in (False, True):
        model.zero_grad()
        sums[free] = SFT()(model, Collate(0, padding_free=free)(encoded))
        sums[free].loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        if not free:
            padded = gradients
    torch.testing.assert_close(sums[True].sample_loss, sums[False].sample_loss, atol=2e-5, rtol=2e-5)
    assert gradients.keys() == padded.keys() and gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, padded[name], atol=1e-4, rtol=1e-4, msg=name)
    encoded[0].input_ids[-3] += 1
    other = SFT()(model, Collate(0, padding_free=True)(encoded)).sample_loss
    assert other[0] != sums[True].sample_loss[0]
    assert torch.equal(other[1:], sums[True].sample_loss[1:])


def test_a_batch_answers_as_its_prompts_alone(backbone: PretrainedVLLM, pictures: dict[str, ImageRef]) -> None:
    model = backbone.load_model().eval()
    red, wide, tall = (pictures[name] for name in ("red", "wide", "tall"))
    prompts = [
        talk(user(red, "what is this, and what for?")),
        talk(user("hi")),
        talk(user(wide, "a?")),
        talk(user("tell me more about that"), assistant("no"), user("why not?")),
        talk(user(tall, "c?"), assistant("red"), user("and?")),
        talk(user("hi"), assistant("yo"), user(red, tall, "which?")),
    ]
    together, alone = (
        dict(ModelResponder(model, backbone, size).respond(prompts, Decoding(8, min_new_tokens=8)))
        for size in (len(prompts), 1)
    )
    assert [together[i].error for i in range(len(prompts))] == [""] * len(prompts)
    assert together == alone
    encoding = Encoding(backbone.processor)
    encoded = [encoding.prompt(prompt) for prompt in prompts]
    whole = next_logits(model, encoded)
    for row, one in enumerate(encoded):
        torch.testing.assert_close(whole[row], next_logits(model, [one])[0], atol=1e-4, rtol=1e-4)
    apart = torch.cdist(whole.flatten(1), whole.flatten(1)) + 9 * torch.eye(len(prompts))
    assert apart.min() > 0.1  # every prompt has its own logits, so equal ones are no accident


@torch.inference_mode()
def next_logits(model: Any, encoded: list[Encoded]) -> Tensor:
    """Logits of the first three tokens of an answer, [prompts, 3, vocabulary]."""
    batch = Collate(0, "left")(encoded)
    output = model.generate(
        **batch.inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, output_logits=True,
        return_dict_in_generate=True, pad_token_id=0,
    )  # fmt: skip
    return torch.stack(output.logits, dim=1)


def tuned(backbone: PretrainedVLLM, components: Components, batch: Batch, steps: int = 2) -> SafetyFineTuning:
    """Two optimizer steps: at the first, adapters' A has no gradient, since B is zero."""
    module = SafetyFineTuning(backbone, components)
    torch.manual_seed(0)
    module.configure_model()
    module.train()
    assert module.model is not None and module.plan is not None
    optimizer = torch.optim.AdamW(parameter_groups(module.model, module.plan, components, weight_decay=0.0))
    for _ in range(steps):
        SFT()(module.model, batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return module


def expected(family: Family, model: torch.nn.Module, components: Components) -> set[str]:
    """Names of what shall change, from the prefixes written by hand: of adapters, that of the layer they adapt."""
    names: set[str] = set()
    for component, tuning in components.items():
        prefixes = tuple(family.parts[component])
        if tuning.train == "full":
            names |= {n for n, _ in model.named_parameters() if n.startswith(prefixes)}
        if tuning.train == "lora":
            linear = [n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
            names |= {f"{n}.lora" for n in linear if n.startswith(prefixes) and n != "lm_head"}
    return {name for name in names if not re.fullmatch(family.unread, name)}


@pytest.mark.parametrize("table", TABLES)
def test_one_step_changes_exactly_what_the_table_names(
    table: str, family: Family, backbone: PretrainedVLLM, pictures: dict[str, ImageRef]
) -> None:
    components, fresh = TABLES[table], backbone.load_model()
    module = tuned(backbone, components, mixed(backbone, pictures))
    before = dict(fresh.named_parameters())
    changed: set[str] = set()
    adapters: dict[str, list[bool]] = {}
    for name, parameter in module.model.named_parameters():  # type: ignore[union-attr]
        plain = original_name(name)
        if "lora_" in plain:
            moved = bool((parameter != 0).any()) if "lora_B" in plain else parameter.requires_grad
            adapters.setdefault(plain.partition(".lora_")[0] + ".lora", []).append(moved)
        elif ".original_module." not in name and not torch.equal(parameter, before[plain]):
            changed.add(plain)
    assert all(both == [True, True] for both in adapters.values())
    assert changed | set(adapters) == expected(family, fresh, components)
    modes = {original_name(f"{n}."): m.training for n, m in module.model.named_modules()}  # type: ignore[union-attr]
    for component, tuning in components.items():
        frozen = [n for n, training in modes.items() if n.startswith(tuple(family.parts[component])) and not training]
        whole = [n for n in modes if n.startswith(tuple(family.parts[component]))]
        assert whole and frozen == (whole if tuning.train == "frozen" else [])


def test_what_is_exported_comes_back_bit_by_bit(
    backbone: PretrainedVLLM, checkpoint: Path, pictures: dict[str, ImageRef], tmp_path: Path
) -> None:
    batch = mixed(backbone, pictures)
    module = tuned(backbone, TABLES["posthoc"], batch).eval()
    export_adapter(module, tmp_path / "adapter", "# adapter")
    attached = PeftModel.from_pretrained(backbone.load_model(), tmp_path / "adapter").eval()
    assert torch.equal(logits(attached, batch), logits(module.model, batch))

    export_model(module, tmp_path / "model", "# model")
    again = PretrainedVLLM(str(tmp_path / "model"), dtype="float32", attention="sdpa")
    reloaded = again.load_model().eval()
    state = module.model.state_dict()  # type: ignore[union-attr]
    assert reloaded.state_dict().keys() == state.keys()
    assert [name for name, tensor in reloaded.state_dict().items() if not torch.equal(tensor, state[name])] == []
    assert torch.equal(logits(reloaded, batch), logits(module.model, batch))
    assert torch.equal(mixed(again, pictures).inputs["input_ids"], batch.inputs["input_ids"])


@torch.inference_mode()
def logits(model: Any, batch: Batch) -> Tensor:
    model.requires_grad_(False)  # torch picks another kernel for weights that want a gradient, even here
    found: Tensor = model(**batch.inputs).logits
    return found
