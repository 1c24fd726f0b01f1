"""Counts the reads of tensors' values that would make a GPU's host wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_READS = {_ATEN._local_scalar_dense.default, _ATEN.nonzero.default, _ATEN.masked_select.default, _ATEN.equal.default}
_BY_MASK = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default}


class HostSyncs(TorchDispatchMode):
    """``with HostSyncs() as syncs: ...``: ``syncs.found`` are the operators that read values, with how often.

    ``item``, ``bool``, ``int`` and ``float`` of a tensor are one read each, and so are the places of a mask
    (``nonzero``, indexing by booleans). ``tolist`` is no operator and is counted as a function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._lists = _Lists(self.found)

    @property
    def count(self) -> int:
        return self.found.total()

    def __enter__(self) -> HostSyncs:
        self._lists.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._lists.__exit__(*exception)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        by_mask = func in _BY_MASK and any(each is not None and each.dtype == torch.bool for each in args[1])
        if func in _READS or by_mask:
            self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


class _Lists(TorchFunctionMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.found["tolist"] += func is Tensor.tolist
        return func(*args, **(kwargs or {}))
