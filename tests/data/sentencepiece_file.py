"""A SentencePiece file of a few letters, written piece by piece, with what makes Llama's peculiar."""

from __future__ import annotations

from pathlib import Path

UNKNOWN, CONTROL, NORMAL, BYTE = 2, 3, 1, 6
WORDS = ["▁a", "▁b", "is", "▁is", *"▁abcdehilnorstuwyASIENTUR:?.,0123456789"]
PIECES = 3 + 2 + len(WORDS) + 256


def save_sentencepiece(folder: Path) -> Path:
    """``tokenizer.model`` in ``folder``, of ``PIECES`` pieces.

    As in Llama's vocabulary, runs of spaces come before all words but have the lowest score: by id ``▁▁`` is the first
    pair to be joined, by score the last.
    """
    from sentencepiece import sentencepiece_model_pb2 as pb2

    model = pb2.ModelProto()
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces += [("▁▁", -1e9, NORMAL), ("▁▁▁▁", -1e9, NORMAL)]
    pieces += [(word, -float(rank), NORMAL) for rank, word in enumerate(WORDS)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    for text, score, kind in pieces:
        model.pieces.add(piece=text, score=score, type=kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    return folder
