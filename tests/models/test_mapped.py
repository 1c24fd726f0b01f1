"""Processes of one machine share the pages of a checkpoint: torchrun's need no copy of it each, and none in float32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import VISION, composed, language_model, save_tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).parents[2]
MB = 2**20

READS = """
import gc, json, sys
from pathlib import Path
import torch.distributed
from vlsafe import ComposedVLLM, PretrainedVLLM
from vlsafe.models.components import Components, Tuning
from vlsafe.models.loading import adapted

def held():
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return next(int(row.split()[1]) for row in rows if row.startswith("Private_Dirty"))

def most():
    rows = Path("/proc/self/status").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("VmHWM"))

torch.distributed.init_process_group("gloo")
told, what = json.loads(sys.argv[1]), sys.argv[2]
kind = ComposedVLLM if what == "composed" else PretrainedVLLM
backbone = kind(**told, attention="sdpa", dtype="bfloat16")
backbone.processor
frozen = Components(Tuning(), Tuning(), Tuning("lora", 1e-4, rank=1))
adapted(PretrainedVLLM(sys.argv[3], attention="sdpa", dtype="bfloat16"), frozen, sharded=False)  # imports
gc.collect()
before, at_start = held(), most()
model = backbone.load_model() if what == "evaluate" else adapted(backbone, frozen, sharded=False)[0]
torch.distributed.barrier()  # both hold it
found = {"private": held() - before, "peak": most() - at_start}
Path(f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
torch.distributed.barrier()
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["evaluate", "fit", "composed"])
def test_two_processes_read_one_copy(what: str, tmp_path: Path) -> None:
    """Of a checkpoint of some 100 MB in bfloat16, neither holds a tenth for itself; both at their most included."""
    tokenizer, words = save_tokenizer(tmp_path / "tokenizer"), tmp_path / "words"
    fields = language_model(tokenizer, hidden_size=768, intermediate_size=2112, num_hidden_layers=7)
    config = LlamaConfig(**{name: value for name, value in fields.items() if name not in ("tokenizer", "model_type")})
    config.vocab_size += 8
    LlamaForCausalLM(config).bfloat16().save_pretrained(words)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(words)
    small, large = composed(tokenizer, dtype="bfloat16"), composed(tokenizer, language=str(words), dtype="bfloat16")  # type: ignore[arg-type]
    for name, backbone in (("small", small), ("large", large)):
        backbone.load_model().save_pretrained(tmp_path / name)
        backbone.processor.save_pretrained(tmp_path / name)
    told = {"checkpoint": str(tmp_path / "large")}
    if what == "composed":
        told = {"vision_encoder": "clip", "vision_weights": VISION["clip"], "language_model": str(words)}
    (tmp_path / "reads.py").write_text(READS)
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "reads.py"]
    done = subprocess.run(
        [sys.executable, *together, json.dumps(told), what, str(tmp_path / "small")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    size = (words / "model.safetensors").stat().st_size
    assert size > 80 * MB
    rows = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for row in rows:
        assert 1024 * max(row["private"], row["peak"]) < size / 5, (row, size)
