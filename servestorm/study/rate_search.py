"""Capacity searches on running servers: each probe is a load with a folder of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from loadtests.samples.validity import samples_needed
from servestorm.methods.capacity_search import LoadOutcome, Search, SearchObjective
from servestorm.methods.doomed_load import doomed_in_flight
from servestorm.methods.percentile_claim import percentile_claim
from servestorm.methods.probe_verdict import probe_of
from servestorm.plan.study_plan import Plan
from servestorm.rundir.files import CAPACITY, ESTIMATE_FOLDER, SAMPLES, probe_folder, write_json
from servestorm.rundir.samples import read_samples
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import PROBE_MOST_IN_FLIGHT, closed_load, probe_load
from servestorm.study.scenario import loads_guess_s

PROBES_GUESS = 8
SPARE = 1.1
"""Poisson arrivals may be fewer than their rate says."""
ESTIMATE_IN_FLIGHT, ESTIMATE_S, ESTIMATE_WARMUP_S = 4, 3.0, 1.0


def search(load: CellLoad, folder: Path) -> None:
    """Probe until the largest rate under the plan's objective is known."""
    steps = RateSearch(load, folder)
    while steps.step():
        pass


def interleaved_searches(loads: Sequence[CellLoad], folders: Sequence[Path]) -> None:
    """Search on deployments that stand together: they take turns, a probe each, in seeded random order.

    Where one search ends the others go on. `folders` holds one folder for each of `loads`.
    """
    open_searches = [RateSearch(load, folder) for load, folder in zip(loads, folders, strict=True)]
    order = random.Random("/".join(str(load.cell.seed) for load in loads))
    while open_searches:
        order.shuffle(open_searches)
        open_searches = [one for one in open_searches if one.step()]


class RateSearch:
    """One search on one deployment, step by step; capacity.json is written after each probe."""

    def __init__(self, load: CellLoad, folder: Path) -> None:
        capacity = load.plan.capacity
        assert capacity
        self._load, self._folder, self._capacity = load, folder, capacity
        self._objective = SearchObjective(capacity.p99_ms, capacity.max_error_percent, capacity.promise)
        self._probes = 0
        self._rates = self._search(capacity.start_rate_per_s) if capacity.start_rate_per_s else None

    def step(self) -> bool:
        """Offer the next load of the search, a probe or the first guess; False where the search is finished."""
        if self._rates is None:
            self._rates = self._search(self._start_rate_per_s())
        elif (rate := self._rates.next_rate()) is not None:
            self._probes += 1
            outcome = self._offer(rate, self._folder / probe_folder(self._probes))
            self._rates.record(probe_of(rate, outcome, self._objective))
            write_json(self._folder / CAPACITY, {"objective": asdict(self._objective), **asdict(self._rates.result())})
        else:
            return False
        self._load.wait_drained()
        return True

    def _search(self, start_rate_per_s: float) -> Search:
        tolerance = self._capacity.tolerance_percent / 100
        return Search(start_rate_per_s, most_probes=self._capacity.most_probes, tolerance=tolerance)

    def _start_rate_per_s(self) -> float:
        """Half of what a short closed loop gives: a search that begins far off spends its probes on the way."""
        images = self._load.variant.images_per_request
        closed = closed_load(ESTIMATE_IN_FLIGHT, ESTIMATE_S, ESTIMATE_WARMUP_S, images)
        summary = self._load.offer(closed, self._folder / ESTIMATE_FOLDER)
        return max(1.0, summary.ok / ESTIMATE_S / 2)

    def _offer(self, rate_per_s: float, folder: Path) -> LoadOutcome:
        """Offer a probe's load, which is given up as soon as it cannot pass any more."""
        warmup_s = self._capacity.warmup_s
        probe_s = max(self._capacity.probe_s, SPARE * samples_needed(0.99) / rate_per_s)
        in_flight = doomed_in_flight(rate_per_s, probe_s, warmup_s, self._objective, PROBE_MOST_IN_FLIGHT)
        images = self._load.variant.images_per_request
        outcome = self._load.offer(probe_load(rate_per_s, probe_s, warmup_s, images, in_flight), folder).outcome
        disturbed = self._load.disturbance(folder)
        claim_ms = _claim_ms(folder) if self._objective.promise else None
        return replace(outcome, p99_claim_ms=claim_ms, disturbed=disturbed.reason if disturbed else None)


def _claim_ms(folder: Path) -> float | None:
    """What the p99 of the load's requests does not exceed, with 99 % confidence."""
    samples = read_samples(folder / SAMPLES)
    return percentile_claim(samples.requests_ms(), 0.99, samples.slice_of()[samples.right()])


def search_guess_s(plan: Plan) -> float:
    """First guess of a search's length in seconds."""
    capacity = plan.capacity
    assert capacity
    return loads_guess_s(capacity.probe_s, capacity.warmup_s, min(PROBES_GUESS, capacity.most_probes))
