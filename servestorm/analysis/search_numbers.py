"""The numbers of a search for the largest rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from servestorm.analysis.run import Run, SearchResult
from servestorm.analysis.scenario import Measured, Numbers
from servestorm.methods.capacity_search import SearchObjective
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes.search import CapacityFile


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
    return record.capacity.confirmed or record.capacity.crossing is not None


def search_reasons(record: CellRecord) -> list[str]:
    """Why the search found none."""
    return [record.capacity.reason] if record.capacity and not record.capacity.confirmed else []


def missing_estimates(runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each engine of which searches that count have no estimate."""
    counted = [run for run in runs if run.counts and run.capacity]
    for engine in dict.fromkeys(run.engine for run in counted):
        own = [run.capacity.crossing for run in counted if run.engine == engine and run.capacity]
        told = [one for one in own if one]
        if len(told) == 1 and not told[0].interval:
            told = []
        if missing := len(own) - len(told):
            yield (
                f"{missing} of {len(own)} searches for the capacity of {ENGINE_SHORT[engine]} do not tell at which "
                "rate p99 meets the objective: too few probes came near it, they scatter too much, or p99 jumps from "
                "far below to far above it. They count for the rate to promise, but not for verdicts, cost and "
                "scaling, which go by that rate."
            )


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
    return SearchResult(
        objective=SearchObjective(
            stored.objective.p99_ms, stored.objective.max_error_percent, stored.objective.promise
        ),
        rate_per_s=stored.rate_per_s,
        low=stored.low,
        high=stored.high,
        confirmed=stored.confirmed,
        probes=[one.probe for one in stored.probes],
        reason=stored.reason,
        crossing=stored.crossing,
    )
