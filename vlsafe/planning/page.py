"""The plan as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from vlsafe.models.summary import summary_table
from vlsafe.planning.estimate import Estimate
from vlsafe.planning.memory import GIB, USABLE, Machine


def print_plan(plan: Estimate, console: Console) -> None:
    console.print(summary_table(plan.sizes.rows))
    share = 100 * plan.sizes.trainable / plan.sizes.parameters
    console.print(f"{plan.sizes.parameters:,} parameters; {plan.sizes.trainable:,} train ({share:.2f} %)")
    console.print(memory_table(plan))
    for line in [f"-> {plan.why}", *facts(plan), *plan.notes]:
        console.print(line, highlight=False, markup=False)


def memory_table(plan: Estimate) -> Table:
    load = plan.workload.heaviest()
    table = Table(
        title=f"GiB per GPU, {_machine(plan.machine)}",
        caption=f"micro-batch of {load.rows} x {load.length} tokens, {load.pictured} with pictures; {_answers(plan)}; "
        f"fits: at most {USABLE:.0%} of the memory",
        caption_justify="left",
    )
    columns = ("weights", "gradients", "optimizer", "activations", "work", "gathered", "answers", "total")
    table.add_column("strategy")
    table.add_column("checkpointing")
    for name in (*columns, "fits"):
        table.add_column(name, justify="right")
    for row in plan.rows:
        cells = [f"{getattr(row, name) / GIB:.2f}" for name in columns]
        fits = "yes" if row.fits(plan.machine) else "no"
        style = "bold" if row == plan.chosen else None
        table.add_row(row.strategy, row.checkpointing, *cells, fits, style=style)
    return table


def facts(plan: Estimate) -> list[str]:
    """Lengths, step, time and disk, a line each."""
    work, pace, machine = plan.workload, plan.chosen_pace, plan.machine
    batch = work.rows * pace.accumulate * machine.gpus
    return [
        f"samples: {work.mean_length:.0f} tokens on average, {max(work.tokens)} at most, {work.known}",
        f"step: {batch} samples ({work.rows} x {machine.gpus} GPUs x accumulate_grad_batches {pace.accumulate}), "
        f"{pace.tokens:,} tokens, {pace.supervised:,} supervised, {pace.flops / 1e15:.3g} PFLOP",
        f"time: {pace.seconds:.3g} s a step at {machine.mfu:.0%} of {machine.tflops:g} TFLOP/s a GPU; "
        f"{pace.steps_per_epoch:,} steps and {pace.hours_per_epoch:.2g} hours an epoch; {pace.steps:,} steps and "
        f"{pace.hours:.2g} hours in all, without evaluation; full checkpointing takes {plan.slower:.2f} times as long",
        *_sent(plan),
        f"disk: {plan.disk['checkpoint'] / 1e9:.3g} GB a checkpoint, {plan.disk['export'] / 1e9:.3g} GB the exported "
        "model",
    ]


def _answers(plan: Estimate) -> str:
    answers = plan.workload.answers
    if answers is None:
        return "no evaluation in the run"
    load = plan.workload.prompts(answers)
    return (
        f"answers, where they need more than activations and work: {load.rows} x {load.length} tokens and "
        f"{answers.new_tokens} new ones each"
    )


def _sent(plan: Estimate) -> list[str]:
    machine = plan.machine
    return [
        f"sent by a GPU a step, {row.strategy}: {sent.within / 1e9:.3g} GB within its node at {machine.link:g} GB/s, "
        f"{sent.between / 1e9:.3g} GB to others at {machine.network:g} GB/s: {sent.seconds(machine):.3g} s, hidden "
        "behind what is computed where that takes longer"
        for row in plan.rows
        if row.checkpointing == "off" and (sent := plan.sent(row)).within + sent.between
    ]


def _machine(machine: Machine) -> str:
    return f"{machine.gpus} GPU{'s' if machine.gpus > 1 else ''} of {machine.memory / GIB:g} GiB"
