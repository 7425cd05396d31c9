"""How many slices of the load the figures of each engine are of, over the runs of a group, and why others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from servestorm.analysis.run import Run


@dataclass(frozen=True)
class SliceTotals:
    """Slices of all complete runs of an engine in a group of runs."""

    group: str
    engine: str
    length_s: float
    """Measured seconds of a slice, the longest of the runs."""
    planned: int
    disturbed: int
    """Other programs or machines took too much, in this engine's slice or in another's of the round."""
    undrained: int
    """At its begin a request of the slice before was unanswered, of any engine of the round."""
    counted: int
    """Slices of which the figures are that the generator's lag does not touch. Disturbed and undrained ones count where
    they are most of a run's: then the run is DISTURBED, or the rate is more than the server can take."""
    late: dict[str, int]
    """Left out of that figure alone, because the load generator sent late."""
    runs: int
    """Runs behind these numbers."""
    invalid: dict[str, int]
    """Runs in which that figure is INVALID, because the load generator sent late."""


def slice_totals(runs: Sequence[Run]) -> list[SliceTotals]:
    """The totals of each group and engine whose runs have slices, in the order of the runs."""
    by_place: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.slices:
            by_place.setdefault((run.group, run.engine), []).append(run)
    return [_totals(group, engine, own) for (group, engine), own in by_place.items()]


def _totals(group: str, engine: str, runs: Sequence[Run]) -> SliceTotals:
    counts = [run.slices for run in runs if run.slices]
    late: Counter[str] = Counter()
    for count in counts:
        late.update(count.late)
    return SliceTotals(
        group=group,
        engine=engine,
        length_s=max(count.length_s for count in counts),
        planned=sum(count.planned for count in counts),
        disturbed=sum(count.disturbed for count in counts),
        undrained=sum(count.undrained for count in counts),
        counted=sum(count.planned - count.left_out for count in counts),
        late={name: number for name, number in late.items() if number},
        runs=len(runs),
        invalid=dict(Counter(name for run in runs for name in run.invalid_figures)),
    )
