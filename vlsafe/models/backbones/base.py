"""What training and evaluation ask of a VLLM. A new architecture is a subclass of Backbone."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from vlsafe.data.chat import Renderer, chat_template, end_of_turn, fitted_template, line_breaks_of, special_tokens
from vlsafe.data.processors import keep_spacing
from vlsafe.errors import ConfigError
from vlsafe.models.backbones.contract import Contract
from vlsafe.models.backbones.features import image_features, summed
from vlsafe.models.backbones.image_fit import fit_of
from vlsafe.models.modes import evaluating
from vlsafe.strategies.attention import Attention, Kernels, Runtime, attend, check, check_name

Component = Literal["vision", "projector", "language"]
COMPONENTS: tuple[Component, ...] = get_args(Component)


class Backbone(metaclass=Contract):
    """A vision encoder, a projector and a language model, joined.

    A subclass implements the three abstract methods and may override the other public ones, which is checked when it
    is built; nothing is loaded before they are called, so that a wrong config fails first.

    Args:
        template: one of our chat templates by name; None takes the processor's own.
        system_prompt: stands before every conversation, in training and in evaluation; None leaves it to the template.
        attention: attention kernel; ``auto`` takes the fastest that device, precision and model allow.
        dtype: precision of frozen weights, and of exports. What trains is float32.
    """

    padding_free = False
    """Whether samples laid one after the other, with position ids that start again, do not see each other.
    True only where a test shows it."""

    image_only: tuple[Component, ...] = ("vision", "projector")
    """Components of which a batch without images leaves something out."""

    def __init__(
        self,
        template: str | None = None,
        system_prompt: str | None = None,
        attention: Attention = "auto",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        self.template = template
        self.system_prompt = system_prompt
        self.attention = attention
        self.dtype = dtype
        self.kernels: Kernels | None = None
        """The attention kernels of the model that was loaded."""
        check_name(attention)
        if template is not None:
            chat_template(template)  # an unknown name fails here, before weights load

    @abstractmethod
    def load_processor(self) -> ProcessorMixin:
        """The processor: tokenizer, image processor, picture token and chat template. Cheap; reads no weights."""

    @abstractmethod
    def load_model(self) -> PreTrainedModel:
        """The model with its weights, in ``self.dtype``, as an image-text-to-text model of transformers. For a run that
        trains weights in full it is asked for in float32, and what is frozen is cast afterwards."""

    @abstractmethod
    def modules_of(self, model: PreTrainedModel) -> dict[Component, list[str]]:
        """Component -> fully qualified module paths in ``model``; together they hold every parameter. A parameter that
        stands in no module of its own is named by itself."""

    @cached_property
    def processor(self) -> ProcessorMixin:
        processor = self.load_processor()
        keep_spacing(processor.tokenizer)
        if self.template is not None:
            processor.chat_template = fitted_template(chat_template(self.template), processor.tokenizer)
        if not processor.chat_template:
            raise ConfigError("the checkpoint brings no chat template; name one with model.backbone.template")
        if processor.tokenizer.pad_token_id is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token  # padding is masked by position
        return processor

    def with_blank_image(
        self, model: PreTrainedModel, inputs: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """Inputs of the model for a batch without images, and a zero to add to its loss: with both, every layer runs,
        in the order of a batch with images, and every parameter gets a gradient, on every rank (pitfalls E1).

        Whoever runs the model in pieces on several processes calls this right before the text runs. Override it, and
        :attr:`image_only`, where images reach layers of the language model that text alone leaves out.
        """
        return inputs, 0 * summed(self.blank_features(model))

    def blank_features(self, model: PreTrainedModel) -> list[Tensor]:
        """The features of one blank image."""
        with evaluating(model):  # a blank image shall not move BatchNorm statistics
            pictures = self.processor.image_processor(Image.new("RGB", (64, 64)), return_tensors="pt")
            return self.picture_features(model, pictures.to(next(model.parameters()).device))

    def picture_features(self, model: PreTrainedModel, pictures: dict[str, Tensor]) -> list[Tensor]:
        """Features of pictures as the language model gets them, after the projector. ``pictures``: what the image
        processor returns. For a model without ``get_image_features``, override this."""
        return image_features(model, pictures)

    def inferred(self) -> list[str]:
        """One line each on what the processor and its template say, for people to check before a run."""
        processor = self.processor
        end = end_of_turn(Renderer(processor), special_tokens(processor))
        end = end or ("a line break" if line_breaks_of(processor.chat_template) else None)
        source = f"ours, {self.template}" if self.template else "the checkpoint's own"
        return [
            f"processor: {type(processor).__name__} with {type(processor.image_processor).__name__}",
            *([f"images become squares by: {fit}"] if (fit := fit_of(processor)) != "own" else []),
            f"picture token: {processor.image_token} ({', '.join(map(str, processor.image_token_ids))})",
            f"chat template: {source}; an answer ends with {end or 'no token, so it cannot be tuned with it'}",
        ]

    def unread(self, model: PreTrainedModel) -> set[str]:
        """Names of vision and projector parameters on which no picture feature depends, such as the layers after the
        feature layer. They cannot train, and DDP refuses parameters without a gradient (pitfalls B4)."""
        owner = self.component_of(model)
        seeing = {name: p for name, p in model.named_parameters() if owner[name] != "language"}
        for parameter in seeing.values():
            parameter.requires_grad_(True)
        gradients = torch.autograd.grad(summed(self.blank_features(model)), list(seeing.values()), allow_unused=True)
        return {name for name, gradient in zip(seeing, gradients, strict=True) if gradient is None}

    def component_of(self, model: PreTrainedModel) -> dict[str, Component]:
        """Parameter name -> component, by the longest module path that holds it.

        Raises ConfigError when a path does not exist or a parameter belongs to no component.
        """
        paths = {path: component for component, found in self.modules_of(model).items() for path in found}
        modules = dict(model.named_modules())
        parameters = dict(model.named_parameters())
        missing = [path for path in paths if path not in modules and path not in parameters]
        owner: dict[str, Component] = {}
        homeless = []
        for name in parameters:
            holders = [path for path in paths if name == path or name.startswith(f"{path}.")]
            if holders:
                owner[name] = paths[max(holders, key=len)]
            else:
                homeless.append(name)
        if missing or homeless:
            raise ConfigError(
                [f"{type(self).__name__}.modules_of names {path!r}, which the model does not have" for path in missing]
                + [f"parameter {name!r} belongs to no component of {type(self).__name__}" for name in homeless]
            )
        return owner

    def configured(self) -> PretrainedConfig | None:
        """The config of the model, or at least of its language model, read before any weight; None where there is none
        to read. By it :meth:`check_attention` knows early what ``attention`` cannot be."""
        return None

    def check_attention(self, runtime: Runtime) -> None:
        """Raises ConfigError where ``attention`` names what cannot run, as far as that is known before weights load."""
        if (config := self.configured()) is not None:
            check(self.attention, runtime, config)

    def attend(self, model: PreTrainedModel, runtime: Runtime) -> None:
        """Give a loaded model its attention kernels, which :attr:`kernels` then names."""
        self.kernels = attend(model, self.attention, runtime, self.padding_free)

    def load(self, runtime: Runtime) -> PreTrainedModel:
        """The model with its weights and its attention kernels, for training or answering under ``runtime``.

        Raises ConfigError where ``attention`` names a kernel that cannot run there.
        """
        self.check_attention(runtime)
        model = self.load_model()
        self.attend(model, runtime)
        return model
