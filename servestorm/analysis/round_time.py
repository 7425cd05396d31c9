"""How long one more run of each engine takes, by what the runs of a study took."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from servestorm.analysis.groups import group_key
from servestorm.methods.samples import Samples
from servestorm.rundir.record import CellRecord, RunRecord

_SECOND_NS: Final = 1e9


def round_seconds(record: RunRecord, samples: Mapping[str, Samples]) -> dict[str, float]:
    """Seconds of a repetition with all engines, by group of runs: the median over those in which every run ended.

    From the order to start to the last moment of which something is recorded, so without the servers' end. Runs that
    were there at the same time count once.
    """
    rounds: dict[tuple[str, int], list[CellRecord]] = defaultdict(list)
    for cell in record.cells:
        rounds[group_key(cell.cell, record.study.variants[cell.cell.variant]), cell.cell.repetition].append(cell)
    took: dict[str, list[float]] = defaultdict(list)
    for (group, _), cells in rounds.items():
        spans = [_span_ns(cell, samples.get(cell.cell.id)) for cell in cells if cell.complete]
        known = [span for span in spans if span]
        if len(known) == len(cells):
            took[group].append(_covered_ns(known) / _SECOND_NS)
    return {group: statistics.median(seconds) for group, seconds in took.items()}


def _span_ns(cell: CellRecord, samples: Samples | None) -> tuple[int, int] | None:
    """The first and the last recorded moment of a run; None where nothing is recorded after the start."""
    begin_ns = min((event.t_ns for event in cell.events), default=None)
    end_ns = max(_moments_ns(cell, samples), default=None)
    return None if begin_ns is None or end_ns is None or end_ns <= begin_ns else (begin_ns, end_ns)


def _moments_ns(cell: CellRecord, samples: Samples | None) -> Iterator[int]:
    yield from (event.t_ns for event in cell.events)
    yield from (at_ns for at_ns, _ in cell.settled or ())
    yield from (second.end_ns for second in cell.machine())
    for load in cell.loads:
        yield from (second.end_ns for second in load.machine())
    if cell.slices:
        yield cell.slices.slices[-1].end_ns
    elif samples and samples.scheduled_ns.size:
        yield samples.begin_ns + int(samples.scheduled_ns[-1])


def _covered_ns(spans: list[tuple[int, int]]) -> int:
    """The time that the spans cover together."""
    covered_ns, until_ns = 0, 0
    for begin_ns, end_ns in sorted(spans):
        covered_ns += max(0, end_ns - max(begin_ns, until_ns))
        until_ns = max(until_ns, end_ns)
    return covered_ns
