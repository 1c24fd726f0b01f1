"""A batch file for SLURM that runs the plan."""

from __future__ import annotations

import math
import shlex

from vlsafe.errors import ConfigError
from vlsafe.planning.estimate import Estimate
from vlsafe.stopping import Preempted

SPARE = 1.5
"""Time asked for, over the time reckoned: for evaluation, export, and an estimate that is too fair."""


FEWEST_CORES = 4
"""Of a process that has no data workers: it decodes and encodes itself, in threads."""


def sbatch(plan: Estimate, argv: list[str], workers: int = 0) -> str:
    """The text of the file. ``argv``: what ``plan`` was asked, without its own options; ``workers``: of ``data``, a
    core each beside two for training. Raises ConfigError when no strategy fits."""
    if plan.chosen is None:
        raise ConfigError(f"no batch file is written: {plan.why}")
    machine, pace = plan.machine, plan.chosen_pace
    per_node = min(machine.per_node, machine.gpus)
    minutes = max(30, math.ceil(pace.hours * 60 * SPARE))
    settings = [
        f"--trainer.devices={per_node}",
        f"--trainer.num_nodes={machine.nodes}",
        f"--trainer.accumulate_grad_batches={pace.accumulate}",
        f"--model.init_args.activation_checkpointing={str(plan.chosen.checkpointing == 'full').lower()}",
    ]
    if machine.gpus > 1:
        settings.append(f"--trainer.strategy={plan.chosen.strategy}")
    srun = "srun --kill-on-bad-exit=1 --cpus-per-task=$SLURM_CPUS_PER_TASK python -m vlsafe fit"
    command = " \\\n  ".join([srun, shlex.join(argv), *settings, "--resume=auto"])
    return f"""#!/bin/bash
# {plan.why}
# Reckoned: {pace.steps:,} steps of {pace.seconds:.3g} s, {pace.hours:.2g} hours; asked for: {SPARE:g} times that.
# Add what your cluster wants: --account, --partition.
#SBATCH --job-name=vlsafe
#SBATCH --nodes={machine.nodes}
#SBATCH --ntasks-per-node={per_node}
#SBATCH --gpus-per-node={per_node}
#SBATCH --cpus-per-task={max(FEWEST_CORES, workers + 2)}
#SBATCH --time={minutes // 60:02d}:{minutes % 60:02d}:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
{command}
status=$?
# 143: told to stop, and saved. The same job goes on from there.
if [ "$status" -eq {Preempted.exit_status} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""
