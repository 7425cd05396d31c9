"""The numbers of a search for the largest rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from servestorm.analysis.run import Run, SearchResult
from servestorm.analysis.scenario import Measured, Numbers, disturbance_of
from servestorm.methods.capacity_estimate import crossing
from servestorm.methods.capacity_search import Probe, SearchObjective
from servestorm.methods.disturbance import Disturbance, worst
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes.search import CapacityFile
from servestorm.rundir.shapes.study import StudyFile


def measured_search(record: CellRecord, images_per_request: int) -> Measured:
    """What a run's search showed; nothing where it left no probe."""
    if not record.capacity:
        return Measured()
    search = _search(record.capacity)
    return Measured(_rates(search, images_per_request) if record.complete else {}, capacity=search)


def is_search_valid(record: CellRecord) -> bool | None:
    """Whether the search found a rate that passed twice, or an estimate; None where it left no probe."""
    if not record.capacity:
        return None
    return record.capacity.confirmed or _search(record.capacity).crossing is not None


def search_reasons(record: CellRecord) -> list[str]:
    """Why the search found none."""
    return [record.capacity.reason] if record.capacity and not record.capacity.confirmed else []


def missing_estimates(runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each engine of which searches that count have no estimate."""
    counted = [run for run in runs if run.counts and run.capacity]
    for engine in dict.fromkeys(run.engine for run in counted):
        own = [run.capacity for run in counted if run.engine == engine]
        if missing := sum(search is not None and search.crossing is None for search in own):
            yield (
                f"{missing} of {len(own)} searches for the capacity of {ENGINE_SHORT[engine]} do not tell at which "
                "rate p99 meets the objective: too few probes came near it, or p99 jumps from far below to far above "
                "it. They count for the rate to promise, but not for verdicts, cost and scaling, which go by that rate."
            )


def search_disturbance(record: CellRecord, study: StudyFile) -> Disturbance | None:
    """Why a search is DISTURBED: the worst of the probes that decide its result, or of all where it has none."""
    if not record.capacity:
        return None
    deciding = _deciding(record.capacity)
    found = (disturbance_of(load.use, study.plan) for load in record.loads if load.probe in deciding)
    return worst(one for one in found if one)


def _deciding(search: CapacityFile) -> set[int]:
    """Numbers, from 1, of the probes that passed at the largest rate, and of the last one at the smallest that did not.

    All where no rate passed twice.
    """
    numbered = list(enumerate(search.probes, 1))
    if not search.confirmed:
        return {number for number, _ in numbered}
    passed = [number for number, p in numbered if p.rate_per_s == search.rate_per_s and p.verdict == "pass"]
    over = [number for number, probe in numbered if probe.rate_per_s == search.high]
    return {*passed, *over[-1:]}


def _rates(search: SearchResult, images_per_request: int) -> Numbers:
    """In images/s."""
    rates = {
        "images_per_s": search.rate_per_s,
        "images_per_s_low": search.low,
        "images_per_s_high": search.high,
        "crossing_images_per_s": search.crossing.rate_per_s if search.crossing else None,
    }
    return {name: None if rate is None else rate * images_per_request for name, rate in rates.items()}


def _search(stored: CapacityFile) -> SearchResult:
    """The search, with where p99 meets the objective by all its probes."""
    probes = [
        Probe(
            probe.rate_per_s,
            probe.verdict,
            probe.reason,
            probe.p99_ms,
            probe.error_percent,
            probe.confirms,
            probe.p99_claim_ms,
            probe.given_up,
        )
        for probe in stored.probes
    ]
    return SearchResult(
        objective=SearchObjective(
            stored.objective.p99_ms, stored.objective.max_error_percent, stored.objective.promise
        ),
        rate_per_s=stored.rate_per_s,
        low=stored.low,
        high=stored.high,
        confirmed=stored.confirmed,
        probes=probes,
        reason=stored.reason,
        crossing=crossing(probes, stored.objective.p99_ms),
    )
