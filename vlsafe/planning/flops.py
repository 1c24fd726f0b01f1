"""Matrix products of the language model per token: the cheap count, for a run that goes on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlsafe.models.adaptation import Plan, component_of, original_name


@dataclass(frozen=True)
class PerToken:
    """FLOPs of one training token, forward and backward: ``body`` at every position, ``head`` where a token is
    supervised."""

    body: int
    head: int


def language_flops(model: nn.Module, plan: Plan, head: nn.Module) -> PerToken:
    """2 FLOPs a weight forward, 2 for the gradient of its input, 2 more for its own where it trains (Kaplan et al.
    2020, arXiv 2001.08361, section 2.1). Left out are the vision side, products of attention scores, which grow with
    the length, and what checkpointing computes again; so a share of the peak reckoned with it is a lower bound.

    ``model``: adapted by ``plan``; ``head``: its output head.
    """
    body = of_head = 0
    heads = {id(parameter) for parameter in head.parameters()}
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    for name, parameter in model.named_parameters():
        replaced = ".original_module." in name and original_name(name) in plan.full
        if parameter.ndim != 2 or replaced or component_of(name, plan.owner) != "language":
            continue
        flops = parameter.numel() * (6 if parameter.requires_grad else 4)
        if id(parameter) in heads:
            of_head += flops
        elif id(parameter) not in embeddings:
            body += flops
    return PerToken(body, of_head)
