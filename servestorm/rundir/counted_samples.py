"""The samples of the runs under load, with which of their slices count: the study and the analysis read the same.

Runs that took turns are judged together, round by round: what disturbed a slice of one is left out of all. Any other
run is judged for itself, second by second, or by whole cycles where it has bursts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from servestorm.errors import StudyError
from servestorm.methods.lag import judge_lag
from servestorm.methods.samples import Samples
from servestorm.methods.slices import SECOND_NS, Floats, MachineTimes, Times, disturbances, of_round, with_disturbance
from servestorm.plan.cells import by_capacity
from servestorm.plan.scenarios import Autoscaling, Bursty, Scaling, Steady
from servestorm.rundir.files import SUMMARY
from servestorm.rundir.machine_table import MachineSecond
from servestorm.rundir.record import CellRecord
from servestorm.rundir.samples import ROUNDING_NS, read_samples, read_turns
from servestorm.rundir.shapes.slices import SlicesFile
from servestorm.rundir.shapes.study import PlanFile

OneLoad = Steady | Bursty | Scaling | Autoscaling
"""The sections of a plan that ask for one load a cell, whose samples lie in the cell's own folder."""
_ROUNDING: Final = 1e-4
"""The generator is given six digits of a rate and of a time."""


def read_counted_samples(cells: Sequence[CellRecord], plan: PlanFile) -> dict[str, Samples]:
    """The samples of every complete run with one load, by the run's id.

    Raises StudyError for a broken file, and where plan, summary, slices and samples are not of one load.
    """
    rounds: dict[tuple[str | int, ...], list[CellRecord]] = {}
    for record in cells:
        if record.complete and record.samples_path and asked_load(plan, record):
            cell = record.cell
            alone = () if record.slices else (cell.id,)
            rounds.setdefault((cell.scenario, cell.variant, cell.repetition, *alone), []).append(record)
    read: dict[str, Samples] = {}
    for records in rounds.values():
        read |= _read_round(records, plan)
    return read


def asked_load(plan: PlanFile, record: CellRecord) -> OneLoad | None:
    """What the plan asks of a run with one load; None of a run of any other kind."""
    asked = plan.asked(record.cell.scenario)
    return asked if isinstance(asked, OneLoad) and not by_capacity(plan, record.cell) else None


def load_duration_s(record: CellRecord, asked: OneLoad) -> float:
    """Measured seconds of a run's load."""
    return record.slices.duration_s if record.slices else asked.duration_s


def _read_round(records: Sequence[CellRecord], plan: PlanFile) -> dict[str, Samples]:
    if records[0].slices:
        loads = _read_turns(records, [record.slices for record in records if record.slices])
    else:
        loads = [_read_alone(record, plan) for record in records]
    for record, samples in zip(records, loads, strict=True):
        _require_alike(record, samples, plan)
    loads = _without_disturbed(records, loads, plan)
    if isinstance(asked_load(plan, records[0]), Scaling):  # a closed loop has no schedule that it could be late for
        judged = loads
    else:
        lag = judge_lag(loads)
        judged = [
            replace(load, use=replace(load.use, late=one.late, invalid=one.invalid))
            for load, one in zip(loads, lag, strict=True)
        ]
    return {record.cell.id: samples for record, samples in zip(records, judged, strict=True)}


def _read_alone(record: CellRecord, plan: PlanFile) -> Samples:
    asked = asked_load(plan, record)
    assert asked and record.samples_path
    # a part of a cycle would have another share of the burst than the whole
    slice_s = asked.off_s + asked.on_s if isinstance(asked, Bursty | Autoscaling) else 1.0
    return read_samples(record.samples_path, slice_s, asked.duration_s)


def _read_turns(records: Sequence[CellRecord], slices: Sequence[SlicesFile]) -> list[Samples]:
    """The loads of a round, with the slices at whose begin a request of any of them was unanswered."""
    turns = [one.turns for one in slices]
    for record, one in zip(records, turns, strict=True):
        if one.begin_ns.size != turns[0].begin_ns.size:
            raise StudyError(
                f"{record.path} has {one.begin_ns.size} slices, and {records[0].path}, of the same round, "
                f"{turns[0].begin_ns.size}: one of them was edited; run the study again."
            )
    # the first request of a lead-in may be due a rounding before it begins, and is not left from the slice before
    begins_ns = np.sort(np.concatenate([one.begin_ns for one in turns])) - ROUNDING_NS
    unanswered, loads = np.zeros(begins_ns.size, np.int64), []
    for record, one in zip(records, turns, strict=True):
        assert record.samples_path
        samples, own = read_turns(record.samples_path, one, begins_ns)
        loads.append(samples)
        unanswered += own
    undrained = np.logical_or.reduce(
        [unanswered[np.searchsorted(begins_ns, one.begin_ns - ROUNDING_NS)] > 0 for one in turns]
    )
    return [replace(load, use=replace(load.use, undrained=undrained)) for load in loads]


def _without_disturbed(records: Sequence[CellRecord], loads: Sequence[Samples], plan: PlanFile) -> list[Samples]:
    """The loads without the slices in which other programs or machines took too much, where that was recorded."""
    limits = plan.disturbance_limits
    machines = [_watching(load, machine_times(record.machine())) for load, record in zip(loads, records, strict=True)]
    # an autoscaler answers to the whole load: no part of it can be taken out
    if not limits or not any(machines) or isinstance(asked_load(plan, records[0]), Autoscaling):
        return list(loads)
    found = [
        disturbances(*_spans(load), machine, limits) if machine else [None] * load.use.measured_s.size
        for load, machine in zip(loads, machines, strict=True)
    ]
    together = of_round(found)
    unit = "slices" if records[0].slices or loads[0].use.slice_ns != SECOND_NS else "seconds"
    watched = frozenset().union(*(machine.watched for machine in machines if machine))
    return [replace(load, use=with_disturbance(load.use, together, watched, unit)) for load in loads]


def _watching(load: Samples, machine: MachineTimes | None) -> MachineTimes | None:
    """The machine, where it was watched from the first slice of the load until the last one began."""
    begins_ns, _ = _spans(load)
    return machine if machine and machine.covers(begins_ns, begins_ns) else None


def _spans(load: Samples) -> tuple[Times, Times]:
    """Begin and end of every measured slice, of the monotonic clock."""
    if load.turns:
        return load.turns.measured_ns, load.turns.end_ns
    begins_ns = load.begin_ns + np.arange(load.use.measured_s.size) * load.use.slice_ns
    return begins_ns, begins_ns + (load.use.measured_s * SECOND_NS).astype(np.int64)


def machine_times(seconds: Sequence[MachineSecond]) -> MachineTimes | None:
    """The seconds as arrays; None where none were recorded."""
    if not seconds:
        return None
    return MachineTimes(
        begin_ns=np.array([one.begin_ns for one in seconds], np.int64),
        end_ns=np.array([one.end_ns for one in seconds], np.int64),
        other_share=_shares([one.other_share for one in seconds]),
        steal_share=_shares([one.steal_share for one in seconds]),
    )


def _shares(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _require_alike(record: CellRecord, samples: Samples, plan: PlanFile) -> None:
    """The plan, summary.json and samples.parquet are of one load; what a summary leaves out cannot be compared."""
    summary, path, load = record.summary, record.path / SUMMARY, asked_load(plan, record)
    assert load
    requests = int(samples.ok.size)
    if summary and summary.has("scheduled") and summary.scheduled != requests:
        raise StudyError(
            f"{path} tells of {summary.scheduled} requests, and samples.parquet beside it holds {requests}: one of "
            "them was edited; run the study again."
        )
    if not requests and not (summary and summary.has("scheduled")):
        raise StudyError(f"{record.samples_path} holds no request: it was edited or cut short; run the study again.")
    if not summary:
        return
    # a closed loop has no rate, and one with bursts has several
    rate = load.rate_per_s if isinstance(load, Steady) else None
    duration_s = load_duration_s(record, load)
    for name, asked, given in (("duration_s", duration_s, summary.duration_s), ("rate", rate, summary.rate)):
        if asked is None or given is None or not summary.has(name):
            continue
        if not math.isclose(asked, given, rel_tol=_ROUNDING):
            raise StudyError(
                f"{path} has a {name} of {given:g}, and study.json asks for {asked:g}: one of them was edited; run the "
                "study again."
            )
