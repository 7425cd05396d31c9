"""Notes on a study as a whole: what is missing, repeated or shared."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from servestorm.analysis.run import Run
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.methods.disturbance import worst
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.rundir.disturbed_runs import disturbance_of
from servestorm.rundir.record import RunRecord

_TENSORFLOW: Final = ("tfserving", "savedmodel")
"""Engines that batch with TensorFlow's own scheduler."""


def state_notes(record: RunRecord, runs: Sequence[Run]) -> list[str]:
    """Sentences for the top of the report, those on the whole study first."""
    notes = []
    if record.study.plan.runs_already:
        notes.append(
            "The endpoints ran already, and were only asked: nothing is told of cold starts, scaling or their use, "
            "nor of what else they were doing."
            if record.study.plan.backend == "attach"
            else "The containers ran already, and were only asked: nothing is told of cold starts or scaling, nor of "
            "what else they were doing."
        )
    notes += _cluster_notes(record)
    notes += _batching_notes(record)
    # a study with a budget ends without what may run but had no time, or was not needed any more
    spent = record.study.plan.budget is not None and record.study.came_to_its_end
    planned = len(record.cells) if spent else len(record.study.cells)
    if (complete := sum(run.state == "complete" for run in runs)) < planned:
        notes.append(f"{complete} of {planned} runs are complete; the numbers below are of those alone.")
    notes += _repeated(record)
    notes += slice_notes(runs)
    for scenario, analysis in SCENARIO_ANALYSES.items():
        notes += analysis.notes([run for run in runs if run.scenario == scenario], record.study.plan)
    if invalid := sum(run.valid is False for run in runs):
        are = "is" if invalid == 1 else "are"
        notes.append(
            f"{invalid} of {planned} runs {are} INVALID, for the reasons below, and left out of the numbers; where no "
            "valid run is left, the numbers are marked INVALID."
        )
    disturbed = [run.disturbed for run in runs if run.disturbed]
    if found := worst(disturbed):
        are = "is" if len(disturbed) == 1 else "are"
        notes.append(
            f"{len(disturbed)} of {planned} runs {are} DISTURBED (at worst, {found.reason}) and left out of the "
            "numbers; where no other VALID run is left, the numbers are marked DISTURBED and there is no verdict."
        )
    return notes


def slice_notes(runs: Sequence[Run]) -> Iterator[str]:
    """What is left out of the figures of runs that count, and which figures are INVALID."""
    counts = [run.slices for run in runs if run.slices and run.counts]
    if left_out := sum(count.left_out for count in counts):
        planned = sum(count.planned for count in counts)
        yield (
            f"{left_out:,} of {planned:,} slices of the runs under load are left out of all their figures, because "
            "other programs or machines took too much or the slice before had not drained; runs that took turns leave "
            "out the same slices."
        )
    if late := sum(bool(count.late) for count in counts):
        runs_leave = "1 run leaves" if late == 1 else f"{late} runs leave"
        yield f"{runs_leave} further slices out of single figures, because the load generator sent late in them."
    invalid = Counter((run.group, name) for run in runs if run.counts for name in run.invalid_figures)
    if invalid:
        named = ", ".join(
            f"{name} of {group} in {times} {'run' if times == 1 else 'runs'}"
            for (group, name), times in invalid.items()
        )
        yield (
            f"The load generator's late sends decided some figures, which are INVALID: {named}. The other figures of "
            "these runs stand."
        )


def _repeated(record: RunRecord) -> Iterator[str]:
    """How many attempts at a load were set aside, and why."""
    attempts = [attempt for cell in record.cells for attempt in cell.attempts]
    summaries = [attempt.summary for attempt in attempts]
    valid = [each is not None and each.valid and each.percentile_counts for each in summaries]
    over = [disturbance_of(attempt.use, record.study.plan) is not None for attempt in attempts]
    disturbed = sum(map(operator.or_, valid, over))
    if repeats := len(attempts) - disturbed:
        tries = "1 try of a load is" if repeats == 1 else f"{repeats} tries of a load are"
        they = "it was" if repeats == 1 else "they were"
        yield (
            f"{tries} INVALID for no other reason than that the generator was late or busy; {they} repeated on the "
            "same servers, and kept beside the tries that count."
        )
    if disturbed:
        were = "1 attempt at a load was" if disturbed == 1 else f"{disturbed} attempts at a load were"
        yield (
            f"{were} DISTURBED by other programs or machines, repeated on the same servers, and kept beside the "
            "attempt that counts."
        )


def _cluster_notes(record: RunRecord) -> Iterator[str]:
    """What a cluster had its servers and the load generator share."""
    cluster, plan = record.environment.kubernetes, record.study.plan
    if not cluster:
        return
    nodes, here = cluster.nodes or [], plan.load_from == "here"
    if here and any(node.this_machine for node in nodes):
        yield (
            "The load generator ran on a node of the cluster, whose cores are the servers' and the cluster's own too: "
            "they slow each other, and latencies are pessimistic."
        )
    if not here and len(nodes) == 1:
        yield (
            "The cluster has one node, so that the load generator ran beside the servers: they slow each other, and "
            "latencies are pessimistic."
        )
    if here and plan.cluster_reach.reach == "port-forward":
        yield "Requests went through the API server (reach: port-forward): latencies hold its part too."


def _batching_notes(record: RunRecord) -> Iterator[str]:
    """What the plan's batch timeout means on each engine, where batching is on: equal settings are not equal waits."""
    batched = [cell.cell for cell in record.cells if cell.cell.max_batch_size > 1]
    tensorflow = [ENGINE_SHORT[name] for name in _TENSORFLOW if any(cell.engine == name for cell in batched)]
    waits = []
    if tensorflow:
        looks = "look" if len(tensorflow) > 1 else "looks"
        waits.append(
            f"{' and '.join(tensorflow)} {looks} about once a millisecond whether the time is up, so that a request "
            "that no other joins may wait 1 ms longer"
        )
    if delays_us := sorted({cell.timeout_us for cell in batched if cell.engine == "torchserve"}):
        whole = ", ".join(f"{-(-us // 1000)} ms for {us:,} µs" for us in delays_us)
        waits.append(f"TorchServe takes whole milliseconds, rounded up ({whole})")
    if waits:
        yield f"Equal batch timeouts are not equal waits: {'; '.join(waits)}."
