"""Training through Lightning's own Trainer: the gradient is that of the global batch, however it is cut up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from fitting import FROZEN, FULL, LORA, POSTHOC, Gradients, data, files, largest_difference, module, tensors, trainer

from vlsafe import ConversationData, Part, SafetyFineTuning
from vlsafe.models.adaptation import Components
from vlsafe.models.schedule import Schedule, limited, optimizer_steps, scheduled
from vlsafe.objectives.sft import SFT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files(tmp_path)


def fitted(tuned: SafetyFineTuning, source: ConversationData, folder: Path, **options: Any) -> L.Trainer:
    made = trainer(folder, **options)
    made.fit(tuned, datamodule=source)
    return made


# --- the loss


def test_accumulation_changes_nothing(tokenizer: Path, folder: Path) -> None:
    runs = []
    for batch_size, accumulate in ((8, 1), (4, 2), (2, 4)):
        tuned, gradients = module(tokenizer), Gradients()
        fitted(
            tuned, data(folder, batch_size=batch_size), folder, accumulate_grad_batches=accumulate,
            callbacks=[gradients], gradient_clip_val=0.5,
        )  # fmt: skip
        runs.append((tensors(tuned), gradients.steps, tuned.seen))
    weights, steps, seen = runs[0]
    assert len(steps) == 2
    for other_weights, other_steps, other_seen in runs[1:]:
        assert largest_difference(weights, other_weights) < 1e-6
        assert all(largest_difference(one, other) < 1e-6 for one, other in zip(steps, other_steps, strict=True))
        assert other_seen == seen


def test_clipping_sees_the_gradient_of_the_mean(tokenizer: Path, folder: Path) -> None:
    norms = []
    for limit in (None, 0.1):
        gradients = Gradients()
        fitted(module(tokenizer), data(folder), folder, max_steps=1, gradient_clip_val=limit, callbacks=[gradients])
        norms.append(float(torch.stack([g.norm() for g in gradients.steps[0].values() if g is not None]).norm()))
    assert norms[0] > 0.2
    assert norms[1] == pytest.approx(0.1, rel=1e-3)


def test_the_logged_losses_are_sums_over_tokens_of_each_source(tokenizer: Path, folder: Path) -> None:
    tuned, source = module(tokenizer), data(folder, batch_size=2)
    logged = fitted(tuned, source, folder, max_steps=1, accumulate_grad_batches=4).callback_metrics

    fresh = module(tokenizer)
    fresh.configure_model()
    loss, tokens = dict.fromkeys(source.part_names, 0.0), dict.fromkeys(source.part_names, 0)
    batches = list(source.train_dataloader())[:4]
    for batch in batches:
        sums = SFT("all")(fresh.model, batch)  # type: ignore[arg-type]
        for name, sample_loss, count in zip(batch.sources, sums.sample_loss, sums.sample_tokens, strict=True):
            loss[name] += float(sample_loss)
            tokens[name] += int(count)
    assert tokens["text"] != tokens["pictures"]
    for name in source.part_names:
        assert float(logged[f"train/loss/{name}"]) == pytest.approx(loss[name] / tokens[name], rel=1e-5)
    assert float(logged["train/loss"]) == pytest.approx(sum(loss.values()) / sum(tokens.values()), rel=1e-5)
    assert int(logged["train/supervised_tokens"]) == sum(tokens.values())
    assert tuned.seen == {name: {"samples": 4, "supervised_tokens": tokens[name]} for name in source.part_names}


def test_held_out_losses_are_sums_over_tokens_and_do_not_disturb_training(tokenizer: Path, folder: Path) -> None:
    held = {"words": f"alpaca:{folder / 'text.json'}", "colours": f"llava:{folder / 'pictures.json'}"}
    source = data(folder, batch_size=5, validation=held)
    tuned = module(tokenizer)
    with_validation = trainer(
        folder, accumulate_grad_batches=2, val_check_interval=1, max_steps=1, limit_val_batches=1.0
    )
    with_validation.fit(tuned, datamodule=source)
    plain = module(tokenizer)
    fitted(plain, data(folder, batch_size=5), folder, accumulate_grad_batches=2, max_steps=1)
    assert largest_difference(tensors(tuned), tensors(plain)) == 0
    assert tuned.seen == plain.seen

    logged = trainer(folder).validate(tuned, datamodule=source, verbose=False)[0]
    loss, tokens = {}, {}
    for batch in source.val_dataloader():
        sums = SFT("all")(tuned.model, batch)  # type: ignore[arg-type]
        for name, sample_loss, count in zip(batch.sources, sums.sample_loss, sums.sample_tokens, strict=True):
            loss[name] = loss.get(name, 0.0) + float(sample_loss)
            tokens[name] = tokens.get(name, 0) + int(count)
    assert logged == pytest.approx(
        {"val/loss": sum(loss.values()) / sum(tokens.values())}
        | {f"val/loss/{name}": loss[name] / tokens[name] for name in held}, rel=1e-5
    )  # fmt: skip
    assert trainer(folder).test(tuned, datamodule=source, verbose=False)[0]["test/loss"] == logged["val/loss"]


# --- a batch without pictures


class OnlyText(ConversationData):
    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__({"text": Part(f"alpaca:{folder / 'text.json'}", share=1)}, samples=16, **options)


def test_a_batch_without_pictures_gives_the_vision_side_a_gradient_of_zero(tokenizer: Path, folder: Path) -> None:
    gradients, tuned = Gradients(), module(tokenizer, Components(FULL, FULL, FULL))
    fitted(tuned, OnlyText(folder), folder, max_steps=1, callbacks=[gradients])
    (step,) = gradients.steps
    sight = {name for name in step if "language_model" not in name and "lm_head" not in name}
    assert len(sight) > 20
    assert all(step[name] is not None and not step[name].any() for name in sight)
    language = module(tokenizer, Components(FROZEN, FROZEN, FULL))
    other = Gradients()
    fitted(language, OnlyText(folder), folder, max_steps=1, callbacks=[other])
    assert largest_difference(other.steps[0], {n: g for n, g in step.items() if n not in sight}) == 0


@pytest.mark.parametrize("encoder", ["clip", "siglip", "dinov2", "efficientnet_lite0"])
def test_every_trainable_tensor_has_a_gradient(encoder: str, tokenizer: Path, folder: Path) -> None:
    gradients, tuned = Gradients(), module(tokenizer, Components(FULL, FULL, FULL), encoder)
    fitted(tuned, data(folder), folder, max_steps=1, callbacks=[gradients])
    assert [name for name, gradient in gradients.steps[0].items() if gradient is None] == []
    if encoder == "clip":  # the last layer comes after the one whose output is read
        frozen = {n.split("vision_tower.")[1] for n, p in tuned.named_parameters() if not p.requires_grad}
        assert all(name.startswith(("encoder.layers.2.", "post_layernorm.")) for name in frozen) and len(frozen) == 18


# --- two processes


class RankZeroSaves(L.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:  # type: ignore[override]
        if trainer.global_rank == 0:
            torch.save({"weights": tensors(pl_module), "seen": pl_module.seen}, self.path)


@pytest.mark.parametrize("components", [POSTHOC, Components(FULL, FULL, FULL)], ids=["posthoc", "full"])
def test_two_processes_give_the_weights_of_one(components: Components, tokenizer: Path, folder: Path) -> None:
    """Batch size 1: at every step one of the processes sees a picture and the other none."""
    alone = module(tokenizer, components)
    fitted(alone, data(folder, batch_size=2), folder, accumulate_grad_batches=2)
    saved = folder / "weights.pt"
    fitted(
        module(tokenizer, components), data(folder, batch_size=1), folder, devices=2, strategy="ddp_fork",
        accumulate_grad_batches=2, callbacks=[RankZeroSaves(saved)],
    )  # fmt: skip
    together = torch.load(saved, weights_only=True)
    assert largest_difference(tensors(alone), together["weights"]) < 1e-5  # Adam takes steps of 1e-2
    assert together["seen"] == alone.seen


# --- learning rates


def test_each_component_has_its_rate_and_warms_up_to_it(
    tokenizer: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: L.Trainer) -> int:
        raise AssertionError("reading it makes a mid-epoch resume restart its data")

    monkeypatch.setattr(L.Trainer, "estimated_stepping_batches", property(refuse))
    rates: list[dict[str, float]] = []

    class Read(L.Callback):
        def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
            rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})

    table = Components(
        replace(FULL, learning_rate=1e-4), replace(FULL, learning_rate=1e-3), replace(LORA, learning_rate=1e-2)
    )
    tuned = module(tokenizer, table, warmup_ratio=0.25, schedule="cosine")
    fitted(
        tuned,
        data(folder, batch_size=2),
        folder,
        max_steps=-1,
        max_epochs=2,
        accumulate_grad_batches=2,
        callbacks=[Read()],
    )
    assert tuned.total_steps() == len(rates) == 8  # 16 samples, 4 a step, 2 epochs
    shape = [1 / 3, 2 / 3, 1, 0.933, 0.75, 0.5, 0.25, 0.067]
    assert [step["language"] / 1e-2 for step in rates] == pytest.approx(shape, abs=1e-3)
    for step in rates:
        assert step["vision"] * 100 == pytest.approx(step["projector"] * 10) == pytest.approx(step["language"])


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(3, -1, 9), (2, 5, 5), (2, 500, 6), (None, 7, 7), (-1, 7, 7), (None, -1, 3000)],
)
def test_the_number_of_optimizer_steps(epochs: int | None, steps: int, expected: int) -> None:
    assert optimizer_steps(batches=10, accumulate=4, max_epochs=epochs, max_steps=steps) == expected


def test_a_limited_epoch_has_fewer_batches() -> None:
    assert (limited(10, 3), limited(10, 30), limited(10, 0.5), limited(10, 1.0), limited(10, 1)) == (3, 10, 5, 10, 1)


def test_schedules_end_where_they_say() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    for shape, half, end in (("cosine", 1.0, 0.0), ("linear", 1.0, 0.0), ("constant", 2.0, 2.0)):
        factor = scheduled(optimizer, Schedule(shape), 10).lr_lambdas[0]  # type: ignore[arg-type]
        assert (2 * factor(0), 2 * factor(5), 2 * factor(10)) == pytest.approx((2.0, half, end))
