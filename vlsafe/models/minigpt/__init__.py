"""MiniGPT-v2 (Chen et al. 2023, arXiv 2310.09478) as a model of transformers.

Importing this package tells transformers' Auto classes of it; :class:`vlsafe.MiniGPTv2` serves it for tuning. The
published weights come into this form with ``python -m vlsafe convert``.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from vlsafe.models.minigpt.configuration import MiniGPTv2Config
from vlsafe.models.minigpt.modeling import MiniGPTv2ForConditionalGeneration, MiniGPTv2Model
from vlsafe.models.minigpt.processing import MiniGPTv2Processor

AutoConfig.register(MiniGPTv2Config.model_type, MiniGPTv2Config)
AutoModel.register(MiniGPTv2Config, MiniGPTv2Model)
AutoModelForImageTextToText.register(MiniGPTv2Config, MiniGPTv2ForConditionalGeneration)
AutoProcessor.register(MiniGPTv2Config, MiniGPTv2Processor)

__all__ = ["MiniGPTv2Config", "MiniGPTv2ForConditionalGeneration", "MiniGPTv2Model", "MiniGPTv2Processor"]
