"""A capacity search on running servers: each probe is a load with a folder of its own."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path

from loadtests.samples.validity import samples_needed
from servestorm.methods.capacity_search import LoadOutcome, Probe, Search, SearchObjective, error_percent, judge
from servestorm.plan.study_plan import Plan
from servestorm.rundir.files import CAPACITY, ESTIMATE_FOLDER, probe_folder, write_json
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import closed_load, probe_load
from servestorm.study.scenario import loads_guess_s

PROBES_GUESS = 8
SPARE = 1.1
"""Poisson arrivals may be fewer than their rate says."""
ESTIMATE_IN_FLIGHT, ESTIMATE_S, ESTIMATE_WARMUP_S = 4, 3.0, 1.0


def search(load: CellLoad, folder: Path) -> None:
    """Probe until the largest rate under the plan's objective is known; capacity.json is written after each probe."""
    capacity = load.plan.capacity
    assert capacity
    start_rate_per_s = capacity.start_rate_per_s or _start_rate_per_s(load, folder)
    tolerance = capacity.tolerance_percent / 100
    rates = Search(start_rate_per_s, most_probes=capacity.most_probes, tolerance=tolerance)
    objective = SearchObjective(capacity.p99_ms, capacity.max_error_percent)
    for number in itertools.count(1):
        rate = rates.next_rate()
        if rate is None:
            break
        probe_s = max(capacity.probe_s, SPARE * samples_needed(0.99) / rate)
        offered = probe_load(rate, probe_s, capacity.warmup_s, load.variant.images_per_request)
        place = folder / probe_folder(number)
        outcome = load.offer(offered, place).outcome
        disturbed = load.disturbance(place)
        outcome = replace(outcome, disturbed=disturbed.reason if disturbed else None)
        rates.record(_probe(rate, outcome, objective))
        write_json(folder / CAPACITY, {"objective": asdict(objective), **asdict(rates.result())})
        load.wait_drained()


def _start_rate_per_s(load: CellLoad, folder: Path) -> float:
    """Half of what a short closed loop gives: a search that begins far off spends its probes on the neighbourhood."""
    closed = closed_load(ESTIMATE_IN_FLIGHT, ESTIMATE_S, ESTIMATE_WARMUP_S, load.variant.images_per_request)
    summary = load.offer(closed, folder / ESTIMATE_FOLDER)
    load.wait_drained()
    return max(1.0, summary.ok / ESTIMATE_S / 2)


def _probe(rate_per_s: float, load: LoadOutcome, objective: SearchObjective) -> Probe:
    verdict, reason = judge(load, objective)
    return Probe(rate_per_s, verdict, reason, load.p99_ms, error_percent(load))


def search_guess_s(plan: Plan) -> float:
    """First guess of a search's length in seconds."""
    capacity = plan.capacity
    assert capacity
    return loads_guess_s(capacity.probe_s, capacity.warmup_s, min(PROBES_GUESS, capacity.most_probes))
