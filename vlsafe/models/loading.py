"""The model of a backbone, with its weights, or with a way to read them piece by piece."""

from __future__ import annotations

from transformers import PreTrainedModel

from vlsafe.models.adaptation import original_name
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.pieces import read_in_pieces
from vlsafe.models.components import Components
from vlsafe.models.quantised import require_quantisation
from vlsafe.strategies.filling import Rows, StandIn


def loaded(backbone: Backbone, components: Components, sharded: bool) -> tuple[PreTrainedModel, Rows | None]:
    """The model, and where ``sharded`` and its backbone leaves weights in their files, what reads rows of them by the
    names of the adapted model; else None.

    Weights in 4 bits, and the magnitudes of DoRA, are made of whole weights, so these are read whole.
    """
    if components.quantises:
        require_quantisation()
    if not sharded or components.quantises or any(tuning.dora for _, tuning in components.items()):
        return backbone.load_model(), None
    with read_in_pieces():
        model = backbone.load_model()
    left = {name: p.rows for name, p in model.named_parameters(remove_duplicate=False) if isinstance(p, StandIn)}
    return model, (lambda name, begin, end: left[original_name(name)](begin, end)) if left else None
