"""The samples of a load with bursts, by scheduled time: what the rules on bursts read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from servestorm.methods.bursts import Flags, LoadSamples, Times
from servestorm.methods.slices import LoadTurns
from servestorm.rundir.sample_columns import OK, OUTCOME, WARMUP, SampleFile, sample_file
from servestorm.rundir.samples import ROUNDING_NS


def read_load(path: Path, warmup_s: float) -> tuple[LoadSamples, int] | None:
    """The load of a samples.parquet, its times counted from the bursts' schedule, and that moment's own nanoseconds.

    The warm-up is a constant load whose first request is due at the very start, so it shows when the bursts' schedule
    began; without a warm-up the first request stands for the start, which is late by about one gap of the base rate.
    None where there is no sample at all. Raises StudyError naming the file where it is not one of samples.
    """
    with sample_file(path) as file:
        columns = _load_columns(file)
    return _load_of(*columns, warmup_s) if columns[0].size else None


def _load_columns(file: SampleFile) -> tuple[Times, Times, Flags, Flags]:
    """scheduled_ns, done_ns (-1 where there is none), ok and warmup of all samples, in the file's order."""
    import pyarrow.compute as pc

    rows = file.rows
    scheduled_ns, done_ns = np.empty(rows, np.int64), np.empty(rows, np.int64)
    ok, warmup = np.empty(rows, np.bool_), np.empty(rows, np.bool_)
    filled = 0
    for batch in file.batches(["scheduled_ns", "done_ns", OUTCOME, WARMUP]):
        part = slice(filled, filled + len(batch))
        scheduled_ns[part] = batch["scheduled_ns"].to_numpy(zero_copy_only=False)
        done_ns[part] = batch["done_ns"].fill_null(-1).to_numpy(zero_copy_only=False)
        ok[part] = pc.equal(batch[OUTCOME].cast("string"), OK).to_numpy(zero_copy_only=False)
        warmup[part] = batch[WARMUP].to_numpy(zero_copy_only=False)
        filled += len(batch)
    return scheduled_ns, done_ns, ok, warmup


def _load_of(scheduled_ns: Times, done_ns: Times, ok: Flags, warmup: Flags, warmup_s: float) -> tuple[LoadSamples, int]:
    start_ns = int(scheduled_ns.min()) + (int(warmup_s * 1e9) if warmup.any() else 0)
    # of the warm-up only what is still under way when the bursts' schedule begins counts, for the queue
    chosen = ~warmup | (done_ns > start_ns)
    order = np.argsort(scheduled_ns, kind="stable")  # samples lie in the order in which they ended
    order = order[chosen[order]]
    load = LoadSamples(scheduled_ns[order], done_ns[order], ok[order], start_ns=0)
    load.scheduled_ns[:] -= start_ns
    load.done_ns[:] -= start_ns  # what never was under way stays negative; what ended did so after the start
    return load, start_ns


def read_turns_load(path: Path, turns: LoadTurns) -> list[LoadSamples]:
    """The load of each turn, in order, its times counted from the measured part of the turn.

    Of what was due before, the lead-in too, only what was still under way then is in it, for the queue. Raises
    StudyError naming the file where it is not one of samples.
    """
    with sample_file(path) as file:
        scheduled_ns, done_ns, ok, warmup = _load_columns(file)
    order = np.argsort(scheduled_ns, kind="stable")
    scheduled_ns, done_ns, ok, warmup = scheduled_ns[order], done_ns[order], ok[order], warmup[order]
    loads = []
    for begin_ns, from_ns, until_ns in zip(turns.begin_ns, turns.measured_ns, turns.end_ns, strict=True):
        part = slice(*np.searchsorted(scheduled_ns, (begin_ns - ROUNDING_NS, until_ns + ROUNDING_NS)))
        chosen = ~warmup[part] | (done_ns[part] > from_ns)
        due_ns, ended_ns = scheduled_ns[part][chosen] - from_ns, done_ns[part][chosen] - from_ns
        loads.append(LoadSamples(due_ns, ended_ns, ok[part][chosen], start_ns=0))
    return loads
