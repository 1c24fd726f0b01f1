"""A step without padding reads nothing back from the GPU layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from family_llava import FAMILY
from flash_kernels import GPU, StandIn, flash_installed, varlen_on_gpu
from host_syncs import HostSyncs
from making import strong
from tiny import ask, draw

from vlsafe import PretrainedVLLM
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding


@pytest.mark.parametrize(("kernels", "before"), [(flash_installed, 11), (varlen_on_gpu, 9)])
def test_collate_tells_the_bounds_of_samples_so_that_no_layer_asks(
    kernels: Callable[..., AbstractContextManager[StandIn]], before: int, tmp_path: Path
) -> None:
    """Two layers. The three that are left are of the whole model: that pictures and their tokens are as many, the words
    of the error if not, and whether samples share the row."""
    strong(FAMILY.write(tmp_path)).save_pretrained(tmp_path)
    backbone = PretrainedVLLM(str(tmp_path), dtype="float32", **FAMILY.options)
    encoding = Encoding(backbone.processor)
    samples = [encoding.sample(each) for each in (ask("hi", "yes"), ask("c?", "red", draw(tmp_path)), ask("a?", "no"))]
    told = Collate(0, padding_free=True)(samples).inputs
    untold = {name: each for name, each in told.items() if not name.startswith(("cu_seq_lens", "max_length"))}
    logits, counts = [], []
    with kernels(exact=True) as kernel:
        model = backbone.load(GPU).eval()
        for inputs in (untold, told):
            with torch.no_grad(), HostSyncs() as syncs:
                logits.append(model(**inputs, use_cache=False).logits)
            counts.append(syncs.count)
        assert sum("varlen" in call for call in kernel.calls) == 2 * 2
    assert torch.equal(*logits)
    assert counts == [before, 3]
