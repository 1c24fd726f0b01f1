"""What a suite says of judge, prompt and images, laid over the model that it measures."""

from __future__ import annotations

import argparse
from copy import copy

from transformers import PretrainedConfig

from vlsafe.data.chat import Renderer, chat_template, fitted_template, opening_of
from vlsafe.evaluation.judges import DEFAULT_JUDGE
from vlsafe.evaluation.suites import Suite
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.image_fit import fit_of, pad_to_square


def judged_by(suite: Suite, options: argparse.Namespace) -> list[str]:
    """Settles ``options.judge``: the one given, else the suite's, else the default. Returns a line where the suite
    names one, and where an answer's length is not the suite's."""
    given, options.judge = options.judge, options.judge or suite.judge or DEFAULT_JUDGE
    told = []
    if suite.judge:
        said = f"judge {given} as --judge says, not the suite's {suite.judge}" if given else f"judge {suite.judge}"
        told.append(said if given != suite.judge else f"judge {given}")
    if options.max_new_tokens not in (None, suite.max_new_tokens):
        told.append(f"{options.max_new_tokens} new tokens as --max-new-tokens says, not {suite.max_new_tokens}")
    return told


def asked_as(suite: Suite, options: argparse.Namespace, backbone: Backbone, config: PretrainedConfig) -> list[str]:
    """Has ``backbone`` ask as the flags say, else as the suite does; returns a line on each thing that the suite names.

    A suite's template and image fit are for models whose own template opens an answer as the suite's does (LLaVA-1.5's
    ``ASSISTANT:``); another model keeps its own.
    """
    told = []
    alike = _opens_alike(backbone, suite.template)
    template = options.template or (suite.template if alike else None)
    if template:
        backbone.processor.chat_template = fitted_template(chat_template(template), backbone.processor.tokenizer)
        backbone.template = template
    if suite.template:
        told.append(_told("template", suite.template, options.template, alike, "--template"))
    suits = alike and config.model_type == "llava"
    if (options.image_fit or (suite.image_fit if suits else None)) == "pad":
        pad_to_square(backbone.processor, config, options.model)
    if suite.image_fit:
        told.append(_told("image fit", suite.image_fit, options.image_fit, suits, "--image-fit"))
        told[-1] += f" ({fit_of(backbone.processor)})" if "checkpoint's own" in told[-1] else ""
    return told


def _told(what: str, suite: str, given: str | None, suits: bool, flag: str) -> str:
    if given is not None:
        return f"{what} {given}" if given == suite else f"{what} {given} as {flag} says, not the suite's {suite}"
    return f"{what} {suite}" if suits else f"the checkpoint's own {what}, as {suite} is for models of LLaVA-1.5's kind"


def _opens_alike(backbone: Backbone, template: str | None) -> bool:
    if not template:
        return False
    processor = copy(backbone.processor)
    processor.chat_template = chat_template(template)
    own, wanted = (opening_of(Renderer(each))[0].strip() for each in (backbone.processor, processor))
    return bool(own) and own == wanted
