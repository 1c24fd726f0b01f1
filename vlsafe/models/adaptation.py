"""From the component table to a model in which exactly that trains, by fully qualified names (pitfalls area B)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from vlsafe.errors import ConfigError
from vlsafe.models.backbones.base import Backbone, Component
from vlsafe.models.components import Components, Tuning
from vlsafe.models.lora import lora_config, targets_of
from vlsafe.models.quantised import quantise

__all__ = [
    "Components",
    "Plan",
    "Tuning",
    "adapted_by",
    "component_of",
    "original_name",
    "planned",
    "set_modes",
]

_PEFT_PREFIX = "base_model.model."
_ADAPTER_WEIGHT = re.compile(r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\..*$")


@dataclass(frozen=True)
class Plan:
    """What the component table means in one model; all names are those of the model before it is adapted."""

    owner: dict[str, Component]
    """Parameter -> its component."""
    full: set[str]
    """Parameters that train themselves."""
    saved: list[str]
    """Modules that hold them, and that PEFT saves whole beside adapters."""
    adapted: dict[str, Tuning]
    """Linear layers that get adapters."""
    packed: list[str]
    """Linear layers whose weights are kept in 4 bits."""
    words: str
    """What happens to the input embeddings and the output head, in a few words."""
    tied: bool
    """Whether embeddings that train share their tensor with the output head."""
    modes: dict[str, bool]
    """Module -> whether it is in train mode while the model trains. Of two that lie inside each other, the inner
    one counts."""


def planned(model: PreTrainedModel, backbone: Backbone, components: Components) -> Plan:
    """The plan for this model. What no picture feature depends on (:meth:`Backbone.unread`) stays frozen.

    Raises ConfigError when the table names what the model does not have.
    """
    owner = backbone.component_of(model)
    sees = components.trains("vision") or components.trains("projector")
    unread = backbone.unread(model) if sees else set()
    vision = components.vision
    layers = [] if vision.last_layers is None else _last_layers(model, owner, unread, vision.last_layers)
    words, said = _words(model, components)

    def chosen(name: str) -> bool:
        """Whether ``last_layers`` takes the parameter in."""
        return owner[name] != "vision" or vision.last_layers is None or _inside(name, layers)

    tuning = dict(components.items())
    full = {
        n for n, c in owner.items() if tuning[c].train == "full" and n not in words and n not in unread and chosen(n)
    }
    full |= {name for name, part in words.items() if part == "full"}
    head = model.get_output_embeddings()
    linear: dict[Component, list[str]] = {component: [] for component in tuning}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head and f"{path}.weight" in owner:
            linear[owner[f"{path}.weight"]].append(path)
    readable = {
        c: [p for p in paths if f"{p}.weight" not in unread and chosen(f"{p}.weight")] for c, paths in linear.items()
    }
    adapted = {p: t for c, t in components.items() if t.adapts for p in targets_of(c, t, readable[c])}
    embeddings = _weight_name(model, model.get_input_embeddings())
    tied = embeddings in full and _weight_name(model, head) == embeddings
    paths = {path: component for component, found in backbone.modules_of(model).items() for path in found}
    modes = {path: tuning[component].train != "frozen" for path, component in paths.items()}
    if vision.last_layers is not None:
        modes |= {path: False for path, component in paths.items() if component == "vision"} | dict.fromkeys(
            layers, True
        )
    return Plan(
        owner=owner,
        full=full,
        saved=_covering(model, full, unread, apart=embeddings if tied else None) if adapted else [],
        adapted=adapted,
        packed=[path for c, t in components.items() if t.train == "qlora" for path in linear[c]],
        words=said,
        tied=tied,
        modes=modes,
    )


def adapted_by(plan: Plan, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
    """The model as the plan says, its trainable set asserted. A fully trained component beside an adapted one becomes
    one of PEFT's ``modules_to_save``, so that the adapter folder holds everything that was trained."""
    if plan.packed:
        quantise(model, plan.packed)
    if plan.adapted:
        model = get_peft_model(model, lora_config(plan.adapted, plan.saved, plan.tied))
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):  # a float32 copy of each input, of which autocast makes bfloat16
                module.cast_input_dtype_enabled = False
    for name, parameter in model.named_parameters():  # after PEFT, which freezes and unfreezes by itself (pitfalls B3)
        parameter.requires_grad_(_trains(name, plan))
    _assert_trainable(model, plan)
    return model


def _trains(name: str, plan: Plan) -> bool:
    if "lora_" in name:
        return _ADAPTER_WEIGHT.sub("", original_name(name)) in plan.adapted
    return original_name(name) in plan.full and ".original_module." not in name


def _assert_trainable(model: nn.Module, plan: Plan) -> None:
    """The trainable parameters are those of the plan, no more and no fewer (pitfalls B2)."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    full = {original_name(name) for name in trained if "lora_" not in name}
    layers = {_ADAPTER_WEIGHT.sub("", original_name(name)) for name in trained if "lora_" in name}
    if full != plan.full or layers != set(plan.adapted):
        raise AssertionError(
            "the trainable set differs from the component table: "
            f"parameters {sorted(full ^ plan.full)[:5]}, adapters {sorted(layers ^ set(plan.adapted))[:5]}"
        )


def set_modes(plan: Plan, model: nn.Module) -> None:
    """Train mode for what trains, eval mode for what is frozen, so that its dropout is off. BatchNorm is in train mode
    only where it trains itself: beside adapters too, its statistics stay those of the weights that it came with."""
    modules: dict[str, list[nn.Module]] = {}
    for name, module in model.named_modules():
        modules.setdefault(original_name(f"{name}.").removesuffix("."), []).append(module)
    for path, training in sorted(plan.modes.items(), key=lambda mode: len(mode[0])):
        for module in modules.get(path, []):
            module.train(training)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


# --- names ------------------------------------------------------------------------------------------------------


def original_name(name: str) -> str:
    """A parameter's name without what PEFT puts around it."""
    name = name.removeprefix(_PEFT_PREFIX).replace(".base_layer.", ".")
    return re.sub(r"\.(modules_to_save\.\w+|original_module)\.", ".", name)


def component_of(name: str, owner: dict[str, Component]) -> Component:
    """Component of a parameter of the adapted model; an adapter weight belongs to the layer that it adapts."""
    plain = original_name(name)
    return owner[plain] if plain in owner else owner[f"{_ADAPTER_WEIGHT.sub('', plain)}.weight"]


def components_of(model: nn.Module, plan: Plan) -> dict[str, Component]:
    """Every parameter of the adapted model -> its component."""
    return {name: component_of(name, plan.owner) for name, _ in model.named_parameters()}


def _inside(name: str, paths: list[str]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _weight_name(model: nn.Module, module: nn.Module | None) -> str | None:
    """Name under which the model lists the module's weight: for a tied head that of the embeddings."""
    if module is None:
        return None
    return next((name for name, parameter in model.named_parameters() if parameter is module.weight), None)


# --- parts of components ------------------------------------------------------------------------------------------


def _words(model: PreTrainedModel, components: Components) -> tuple[dict[str, str], str]:
    """Weights of the input embeddings and of the head -> ``frozen`` or ``full``; and the same in words.

    Raises ConfigError when a tied head is to be treated in another way than the embeddings.
    """
    follows = "full" if components.language.train == "full" else "frozen"
    embeddings = _weight_name(model, model.get_input_embeddings())
    head = _weight_name(model, model.get_output_embeddings())
    if head == embeddings and embeddings is not None:
        stated = components.embeddings or components.head or follows
        if components.head not in (None, stated):
            raise ConfigError(
                "the output head of this model is tied to its input embeddings, one tensor for both: set "
                f"model.components.head to {stated}, as embeddings, or leave it out"
            )
        return {embeddings: stated}, f"embeddings and tied head {stated}"
    parts = {"embeddings": components.embeddings or follows, "head": components.head or follows}
    named = {name: part for name, part in zip((embeddings, head), parts.values(), strict=True) if name is not None}
    bias = f"{_path_of(model, model.get_output_embeddings())}.bias"
    if bias in dict(model.named_parameters()):
        named[bias] = parts["head"]
    return named, ", ".join(f"{word} {part}" for word, part in parts.items())


def _path_of(model: nn.Module, wanted: nn.Module | None) -> str | None:
    return next((path for path, module in model.named_modules() if module is wanted), None)


def _last_layers(model: nn.Module, owner: dict[str, Component], unread: set[str], count: int) -> list[str]:
    """Paths of the last ``count`` layers, of those that are read, of every stack in the vision encoder."""
    stacks: list[str] = []
    chosen: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or _inside(path, stacks) or len({type(part) for part in module}) != 1:
            continue
        layers = {
            f"{path}.{i}": [n for n, _ in layer.named_parameters(prefix=f"{path}.{i}")]
            for i, layer in enumerate(module)
        }
        if {owner.get(name) for names in layers.values() for name in names} != {"vision"}:
            continue
        stacks.append(path)
        read = [layer for layer, names in layers.items() if not unread.issuperset(names)]
        if count > len(read):
            raise ConfigError(
                f"model.components.vision.last_layers is {count}, but {path} has {len(read)} layers that are read; "
                "leave it out to train the whole encoder"
            )
        chosen += read[-count:]
    if not chosen:
        raise ConfigError("model.components.vision.last_layers: this encoder has no stack of layers; leave it out")
    return chosen


def _covering(model: nn.Module, full: set[str], unread: set[str], apart: str | None) -> list[str]:
    """The fewest modules that hold the parameters ``full`` and, but for unread ones, no others.

    ``apart``: a parameter whose module must not be hidden in a larger one. Raises ConfigError for parameters that
    stand in a module beside others that do not train.
    """
    return list(_cover(model, "", full, unread, apart))


def _cover(module: nn.Module, path: str, full: set[str], unread: set[str], apart: str | None) -> Iterator[str]:
    names = {name for name, _ in module.named_parameters(prefix=path)}
    if not names & full:
        return
    whole = names <= full | unread and not (apart in names and len(names) > 1)
    if path and whole and not isinstance(module, nn.ModuleList | nn.ModuleDict):
        yield path
        return
    loose = {name for name, _ in module.named_parameters(prefix=path, recurse=False)} & full
    if loose:
        raise ConfigError(
            f"{', '.join(sorted(loose))} cannot be trained in full beside LoRA elsewhere: PEFT saves whole modules "
            "only. Train every component in full, or the language model by LoRA"
        )
    for name, child in module.named_children():
        yield from _cover(child, f"{path}.{name}" if path else name, full, unread, apart)
