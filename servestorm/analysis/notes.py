"""Notes on a study as a whole: what is missing, repeated or shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from servestorm.analysis.run import Run
from servestorm.rundir.record import RunRecord
from servestorm.rundir.shapes.study import PlanFile


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
    planned = len(record.study.cells)
    if (complete := sum(run.state == "complete" for run in runs)) < planned:
        notes.append(f"{complete} of {planned} runs are complete; the numbers below are of those alone.")
    if repeats := sum(cell.repeats for cell in record.cells):
        tries = "1 try of a load is" if repeats == 1 else f"{repeats} tries of a load are"
        they = "it was" if repeats == 1 else "they were"
        notes.append(
            f"{tries} INVALID for no other reason than that the generator was late or busy; {they} repeated on the "
            "same servers, and kept beside the tries that count."
        )
    notes += _autoscaling_notes(record.study.plan, runs)
    if invalid := sum(run.valid is False for run in runs):
        are = "is" if invalid == 1 else "are"
        notes.append(
            f"{invalid} of {planned} runs {are} INVALID, for the reasons below, and left out of the numbers; where no "
            "valid run is left, the numbers are marked INVALID."
        )
    return notes


def _autoscaling_notes(plan: PlanFile, runs: Sequence[Run]) -> Iterator[str]:
    """What keeps the figures of an autoscaler from telling all."""
    scaled = [run for run in runs if run.scenario == "autoscaling" and run.counts]
    if any(run.autoscaling is None for run in scaled):
        yield (
            "The clock of the load generator and that of the replicas' events could not be compared in some runs under "
            "an autoscaler: of those only latencies are told."
        )
    reach = plan.cluster_reach
    if scaled and reach.reach == "service" and reach.balancer == "none":
        yield (
            "Under the autoscaler load went to a Service, which deals out connections and not requests: a new replica "
            "gets none that are open. Set kubernetes.balancer: haproxy or kubernetes.reach: pods to see what it "
            "can do."
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
