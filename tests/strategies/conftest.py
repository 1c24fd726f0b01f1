"""The tests of the models bring a tiny model, data that fits it and tiny checkpoints of every family."""

from __future__ import annotations

import sys
from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
sys.path += [str(MODELS), str(MODELS / "families")]
