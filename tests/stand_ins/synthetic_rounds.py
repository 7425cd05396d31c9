"""A run directory of rounds, in which engines that stand together are loaded in turn, made without any server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.samples.slices import usable_slices
from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.rundir.machine_table import MachineSecond, machine_bytes
from tests.stand_ins.synthetic_run import LATENCY_MS, START_NS, make_cell, make_run, write_samples

PLAN = """\
name: synthetic
model: {name: cnn}
engines: [savedmodel, torchserve]
repetitions: 3
cold_starts: 0
steady: {rate_per_s: 100, duration_s: 20, warmup_s: 2}
cpus: {engine: [0], generator: [0]}
"""
LEAD_S, GAP_S, WARMUP_S = 0.25, 0.3, 2.0
S_NS = 10**9

OfSlice = Callable[[Cell, int, int], float | np.ndarray]
"""Of a cell, the number of a slice and how many requests it has: one value a request, or one for all."""


def usual_latency_ms(cell: Cell, number: int, size: int) -> np.ndarray:
    """A gamma distribution about the engine's mean, the same for all slices."""
    random = np.random.default_rng([cell.index, number + 1, 11])
    return LATENCY_MS[cell.engine] * (0.7 + random.gamma(1.5, 0.2, size))


@dataclass(frozen=True)
class Round:
    """What happens in the rounds of a made-up study; each function may look at the cell and the slice."""

    latency_ms: OfSlice = usual_latency_ms
    """From the scheduled time to the answer, before the lag."""
    lag_ms: OfSlice = lambda cell, number, size: 0.01
    """From the scheduled time to the send: it makes the latency longer."""
    other_share: Callable[[Cell, int], float] = lambda cell, number: 0.0
    """Of the machine's cores, used by other programs during that slice of that cell."""
    cpu_s: Callable[[Cell, int], float | None] = lambda cell, number: 0.4
    idle_cpu_s: float | None = 0.002
    slices: int = 10
    length_s: float = 2.0
    rate_per_s: float = 100.0
    machine: bool = True
    """Whether machine.parquet is written."""


def make_rounds(root: Path, what: Round | None = None, plan_text: str = PLAN) -> Path:
    """Write a whole run directory of the plan's rounds under `root`."""

    def make(run: Path, plan: Plan, cell: Cell) -> Path:
        if cell.scenario not in ("steady", "bursty"):
            return make_cell(run, plan, cell)
        return _make_cell(run, plan, cell, what or Round())

    return make_run(root, plan_text, make=make)


def slice_begin_s(plan: Plan, cell: Cell, number: int, what: Round) -> float:
    """Of the lead-in, after the load's start: slice `number` of every engine is neighbour of the others'."""
    engines = list(plan.engines)
    place = number * len(engines) + (engines.index(cell.engine) + number) % len(engines)
    return WARMUP_S + place * (LEAD_S + what.length_s + GAP_S)


def _make_cell(run: Path, plan: Plan, cell: Cell, what: Round) -> Path:
    folder = run / "cells" / cell.id
    begins_s = [slice_begin_s(plan, cell, number, what) for number in range(what.slices)]
    due_s, warmup, lag_ms, latency_ms = _requests(cell, begins_s, what)
    lags_ns = (lag_ms * 1e6).astype(np.int64)
    scheduled_ns = START_NS + (due_s * 1e9).astype(np.int64)
    write_samples(folder, due_s, (latency_ms + lag_ms) / 1000, warmup=warmup, sent_ns=scheduled_ns + lags_ns)
    _json(folder / "cell.json", cell.as_dict())
    _json(folder / "outcome.json", {"state": "complete", "reason": None})
    _json(folder / "events.json", [])
    _json(folder / "summary.json", _summary(due_s, warmup, lag_ms, latency_ms, what))
    _json(folder / "slices.json", _slices(cell, begins_s, what))
    _json(folder / "use.json", {"ready": {"cpu_s": 3.0}, "end": {"cpu_s": 60.0}})
    if what.machine:
        (folder / "machine.parquet").write_bytes(machine_bytes(_machine(plan, cell, what)))
    return folder


def _requests(cell: Cell, begins_s: list[float], what: Round) -> tuple[np.ndarray, ...]:
    """Due times in seconds, warm-up flags, lags and latencies: of the warm-up, and of every lead-in and slice."""
    step = 1 / what.rate_per_s
    parts = [(np.arange(0, WARMUP_S - GAP_S, step), True, -1)]
    for number, begin_s in enumerate(begins_s):
        random = np.random.default_rng([cell.seed, number])  # the same arrivals for every engine
        inside_s = np.sort(random.uniform(0, what.length_s, round(what.length_s * what.rate_per_s)))
        parts += [(np.arange(begin_s, begin_s + LEAD_S, step), True, number)]
        parts += [(begin_s + LEAD_S + inside_s, False, number)]
    due_s = np.concatenate([part for part, *_ in parts])
    warmup = np.concatenate([np.full(part.size, flag) for part, flag, _ in parts])

    def of(values: OfSlice) -> np.ndarray:
        sizes = ((number, part.size) for part, _, number in parts)
        return np.concatenate([np.broadcast_to(values(cell, number, size), size) for number, size in sizes])

    return due_s, warmup, of(what.lag_ms), of(what.latency_ms)


def _summary(
    due_s: np.ndarray, warmup: np.ndarray, lag_ms: np.ndarray, latency_ms: np.ndarray, what: Round
) -> Mapping[str, object]:
    """As the load generator writes it, as far as somebody reads it."""
    measured = ~warmup
    slice_of = np.repeat(np.arange(what.slices), round(what.length_s * what.rate_per_s))
    figures = usable_slices((latency_ms + lag_ms)[measured], latency_ms[measured], slice_of, what.slices)
    return {
        "valid": True,
        "reasons": [],
        "scheduled": int(measured.sum()),
        "rate": what.rate_per_s,
        "duration_s": what.slices * what.length_s,
        "warmup_s": WARMUP_S + LEAD_S,
        "started_at": "2026-01-01T00:00:00+00:00",
        "slices": what.slices,
        "latency_ms": {name: figure.scheduled if figure.counts else None for name, figure in figures.items()},
        "figures": {
            name: {
                "scheduled_ms": figure.scheduled,
                "sent_ms": figure.sent,
                "slices": what.slices,
                "slices_used": int(figure.used.sum()),
                "counts": figure.counts,
            }
            for name, figure in figures.items()
        },
    }


def _slices(cell: Cell, begins_s: list[float], what: Round) -> Mapping[str, object]:
    one_s = LEAD_S + what.length_s
    return {
        "lead_s": LEAD_S,
        "length_s": what.length_s,
        "slices": [
            {
                "begin_ns": START_NS + round(begin_s * S_NS),
                "end_ns": START_NS + round((begin_s + one_s) * S_NS),
                "cpu_s": what.cpu_s(cell, number),
                "idle_cpu_s": what.idle_cpu_s,
                "idle_s": one_s,
            }
            for number, begin_s in enumerate(begins_s)
        ],
    }


def _machine(plan: Plan, cell: Cell, what: Round) -> list[MachineSecond]:
    """Halves of a second of the whole round, whose shares are those of the slices that they begin in."""
    shares = []
    for engine in plan.engines:
        own = Cell(**{**vars(cell), "engine": engine})
        for number in range(what.slices):
            begin_s = slice_begin_s(plan, own, number, what)
            shares.append((begin_s, begin_s + LEAD_S + what.length_s, what.other_share(own, number)))
    until_s = max(end_s for _, end_s, _ in shares) + 1
    seconds = []
    for begin_s in np.arange(0, until_s, 0.5):
        share = next((of for begin, end, of in shares if begin <= begin_s < end), 0.0)
        moments = (START_NS + round(moment * S_NS) for moment in (begin_s, begin_s + 0.5))
        seconds.append(MachineSecond(*moments, 0.0, share, 1.0, 0.5, 0.0, 0.1, 0.0))
    return seconds


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
