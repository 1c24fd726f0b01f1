"""SafetyFineTuning: the LightningModule over any Backbone."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import lightning as L
import torch
from peft import PeftModel
from rich.console import Console
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

from vlsafe.answering import Decoding
from vlsafe.data.collate import Batch
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Plan, components_of, set_modes
from vlsafe.models.backbones.base import Backbone, Component
from vlsafe.models.components import Components
from vlsafe.models.initial_adapter import adapter_folder, start_from
from vlsafe.models.loading import adapted, check_precision, check_strategy
from vlsafe.models.lora import adapters_off
from vlsafe.models.responder import generated
from vlsafe.models.schedule import Schedule, Shape, limited, optimizer_steps, refuse_odd_rates, scheduled
from vlsafe.models.source_losses import SourceLosses, count, means
from vlsafe.models.summary import parameter_groups, summary, summary_table
from vlsafe.models.trained_state import kept_names, require_same
from vlsafe.objectives.base import Objective
from vlsafe.objectives.sft import SFT
from vlsafe.strategies.attention import Runtime
from vlsafe.strategies.clipping import clip_gradients
from vlsafe.strategies.fsdp2 import FSDP2
from vlsafe.strategies.recompute import compile_blocks, recompute, words_need_gradients

T = TypeVar("T")


class SafetyFineTuning(L.LightningModule):
    """Tunes the components of a VLLM that the table names, by an objective, and logs the loss of every source.

    Args:
        backbone: the VLLM; ``vlsafe.ComposedVLLM``, ``vlsafe.PretrainedVLLM`` or a subclass of ``vlsafe.Backbone``.
        components: what trains, and how fast.
        objective: how a batch becomes a loss.
        adapter: folder of a PEFT adapter whose training goes on; its layers, ranks and scale must be the table's. None
            starts new ones, which change nothing at first.
        schedule: shape of the learning rate after warm-up.
        warmup_ratio: share of the optimizer steps spent on linear warm-up.
        warmup_steps: their number, in place of a share.
        warmup_start: learning rate of the first warm-up step; None starts at one step's share of a component's own.
        min_learning_rate: where the schedule ends.
        weight_decay: of AdamW, for weights (no bias, no norm) of components that have none of their own.
        betas: of AdamW.
        activation_checkpointing: recompute activations in the backward pass; less memory, about a fifth slower. True
            for every block, or component -> every n-th block, such as ``{language: 2}``.
        compile: ``torch.compile`` each block. Worth its minutes in runs of many hundred steps.
    """

    def __init__(
        self,
        backbone: Backbone,
        components: Components,
        objective: Objective | None = None,
        adapter: str | None = None,
        schedule: Shape = "cosine",
        warmup_ratio: float = 0.03,
        warmup_steps: int | None = None,
        warmup_start: float | None = None,
        min_learning_rate: float = 0.0,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        activation_checkpointing: bool | dict[Component, int] = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        components.check()
        refuse_odd_rates(components, warmup_ratio, warmup_steps, warmup_start, min_learning_rate)
        self.backbone = backbone
        self.components = components
        self.adapter = adapter
        if adapter is not None and not any(tuning.adapts for _, tuning in components.items()):
            raise ConfigError("model.adapter is to go on training, but model.components trains none (train: lora)")
        self.objective = objective or SFT()
        self.schedule: Shape = schedule
        self.warmup_ratio = warmup_ratio
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.min_learning_rate = min_learning_rate
        self.weight_decay = weight_decay
        self.betas = betas
        self.activation_checkpointing = activation_checkpointing
        self.compiles = compile
        self.strict_loading = False  # checkpoints hold what trains; on_load_checkpoint checks that
        self.model: PreTrainedModel | PeftModel | None = None
        self.plan: Plan | None = None
        self.trained: list[dict[str, Any]] = []
        self.seen: dict[str, dict[str, int]] = {}
        self._seed = torch.initial_seed()
        self._window = SourceLosses()
        self._held_out = SourceLosses()

    # --- construction -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """What is wrong with strategy, precision, processor or attention is told before any weight is read."""
        check_strategy(self.trainer.strategy, self.components)
        check_precision(self.trainer.precision, self.backbone)
        assert self.backbone.processor is not None
        self.backbone.check_attention(self.runtime)
        if self.adapter is not None:
            adapter_folder(self.adapter)

    def configure_model(self) -> None:
        """Load and adapt the model, once; Lightning may call this again."""
        if self.model is not None:
            return
        # what an adapter brings takes the place of weights, so they must be there
        in_pieces = self.sharded is not None and self.adapter is None
        self.model, self.plan, rows = adapted(self.backbone, self.components, in_pieces)
        self.backbone.attend(self._plain(), self.runtime)
        self._plain().config.use_cache = False
        if self.adapter is not None:
            start_from(self.model, self.adapter)
        if self.activation_checkpointing:
            recompute(self._plain(), self.activation_checkpointing, components_of(self._plain(), self.plan))
        if self.sharded:
            # Blocks whose input needs no gradient reduce theirs late. With a trained projector that would be so on
            # ranks without pictures alone, and the ranks would add up gradients of different blocks.
            words_need_gradients(self._plain())
        self.trained = summary(self.model, self.plan, self.components)
        if self.global_rank == 0:
            Console(stderr=True).print(summary_table(self.trained))
            Console(stderr=True).print(f"attention: {self.backbone.kernels}", highlight=False, soft_wrap=True)
        if self.compiles:
            compile_blocks(self.model)
        if self.sharded:
            self.sharded.shard(self, self.model, rows)
        self.train(self.training)

    def train(self, mode: bool = True) -> SafetyFineTuning:
        """What is frozen stays in eval mode: no dropout, and BatchNorm keeps its statistics."""
        super().train(mode)
        if mode and self.model is not None and self.plan is not None:
            set_modes(self.plan, self._plain())
        return self

    def before_tuning(self) -> AbstractContextManager[None]:
        """The model as it is before the first step: without its adapters, which change nothing yet, it answers faster.
        An adapter that goes on is part of that model and stays."""
        new_adapters = isinstance(self.model, PeftModel) and self.adapter is None
        return adapters_off(self.model) if new_adapters else nullcontext()

    def configure_optimizers(self) -> dict[str, Any]:
        model = self._tuned()
        assert self.plan is not None
        groups = parameter_groups(model, self.plan, self.components, self.weight_decay)
        optimizer = AdamW(groups, betas=self.betas, fused=True)
        steps = self.total_steps()
        scheduler = scheduled(optimizer, self.rates(steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def rates(self, steps: int) -> Schedule:
        """The schedule of a run of ``steps``; warns where warm-up leaves nothing of it."""
        warmup = round(self.warmup_ratio * steps) if self.warmup_steps is None else self.warmup_steps
        schedule = Schedule(self.schedule, warmup, self.warmup_start, self.min_learning_rate)
        schedule.warn_of_no_peak(steps)
        return schedule

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        trainer = self.trainer
        batches = limited(trainer.datamodule.batches_per_epoch, trainer.limit_train_batches)
        return optimizer_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps)

    # --- training -----------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._seed_dropout(batch_idx)
        batch, zero = self._with_blank_image(batch)
        sums = self.objective(self._tuned(), batch)
        sums.loss = sums.loss + zero
        self._window.add(sums, batch)
        # Lightning divides by the accumulated micro-batches and DDP by the ranks. Undo both: the gradient of the
        # window is that of the plain sum, and on_before_optimizer_step divides it by the window's tokens.
        return sums.loss * (self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def _seed_dropout(self, batch_idx: int) -> None:
        """Dropout depends on the run's seed, the step and the rank alone, so that a resumed run repeats it."""
        place = f"{self._seed}/{self.current_epoch}/{batch_idx}/{self.global_rank}"
        torch.manual_seed(zlib.crc32(place.encode()))

    def _with_blank_image(self, batch: Batch) -> tuple[Batch, Tensor | float]:
        """The batch, and what to add to its loss. Where it has no images and some rank's batch may have, it runs what
        images run: DDP waits for every gradient, and ranks that shard the model must gather its blocks in the same
        order, forward and backward (pitfalls E1)."""
        trains = any(self.components.trains(component) for component in self.backbone.image_only)
        if batch.has_pictures or not (trains or self.sharded):
            return batch, 0.0
        inputs, zero = self.backbone.with_blank_image(self._plain(), batch.inputs)
        return replace(batch, inputs=inputs), zero

    @property
    def sharded(self) -> FSDP2 | None:
        """The strategy, where it keeps weights in pieces: then every rank must run every block."""
        strategy = None if self._trainer is None else self._trainer.strategy
        return strategy if isinstance(strategy, FSDP2) else None

    @property
    def runtime(self) -> Runtime:
        """Where the model computes, and in which precision its attention does; before a Trainer has it, on this
        machine's GPU, where there is one, in that of its weights."""
        if self._trainer is None:
            return Runtime.here(self.backbone.dtype)
        strategy = self._trainer.strategy
        compute = self.sharded.compute if self.sharded else None
        return Runtime.under(strategy.root_device, compute or strategy.precision_plugin.precision, self.backbone.dtype)

    def gathered(self, work: Callable[[], T]) -> T:
        """``work()``, while what stands in no block is whole, where the strategy shards (:meth:`FSDP2.shard`)."""
        return work()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        per_source = self._window.reduced(self.trainer, self.trainer.datamodule.part_names, self.device)
        count(self.seen, self.trainer.datamodule.part_names, per_source)
        tokens = per_source[:, 1].sum()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_div_(gradients, float(tokens))
        self._log_losses("train", self.trainer.datamodule.part_names, per_source)
        self.log("train/supervised_tokens", tokens)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            clip_gradients(parameters, gradient_clip_val, gradient_clip_algorithm)

    def _log_losses(self, stage: str, names: list[str], per_source: Tensor) -> None:
        for name, mean in means(stage, names, per_source):
            self.log(name, mean, prog_bar=name == f"{stage}/loss")

    # --- validation and test: loss on held-out conversations -----------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if self.sharded:
            batch, _ = self._with_blank_image(batch)
        sums = self.objective(self._tuned(), batch)
        self._held_out.add(sums, batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._log_held_out("val")

    def on_test_epoch_end(self) -> None:
        self._log_held_out("test")

    def _log_held_out(self, stage: str) -> None:
        names = list(self.trainer.datamodule.validation)
        self._log_losses(stage, names, self._held_out.reduced(self.trainer, names, self.device))

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        """One answer a prompt, greedy."""
        return [answer.text for answer in generated(self._tuned(), self.backbone.processor, batch, Decoding())]

    # --- checkpoints hold what trains -----------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trainable, buffers = kept_names(self._tuned())
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable | buffers}
        checkpoint["vlsafe"] = {
            "seen": self.seen,
            "trained": [row["component"] for row in self.trained if row["trainable"]],
            "seed": self._seed,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises VlsafeError unless the checkpoint holds exactly what this config trains."""
        require_same(checkpoint["state_dict"], self._tuned())
        self.seen, self._seed = checkpoint["vlsafe"]["seen"], checkpoint["vlsafe"]["seed"]

    def _plain(self) -> PreTrainedModel:
        model = self._tuned()
        return model.get_base_model() if isinstance(model, PeftModel) else model

    def _tuned(self) -> Any:
        """The model, which configure_model has loaded."""
        if self.model is None:
            self.configure_model()
        return self.model
