"""A model that is spread over processes, put together on one of them: to be evaluated and exported."""

from __future__ import annotations

from vlsafe.models.module import SafetyFineTuning


def consolidated(module: SafetyFineTuning) -> SafetyFineTuning:
    """On the first process, a module that holds the whole model; ``module`` itself where nothing is sharded.

    Every process must call it. Only what trains is gathered, on the CPU; the first process loads the rest again from
    where it came. On the others, ``module`` is returned and is of no use.
    """
    if module.sharded is None:
        return module
    state = module.sharded.trained()
    if module.global_rank != 0:
        return module
    together = SafetyFineTuning(module.backbone, module.components, module.objective, module.adapter)
    together.configure_model()
    together.load_state_dict(state, strict=False)
    together.seen = module.seen
    return together.to(module.device)
