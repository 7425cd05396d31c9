"""Which slices of a load a figure is made of: those in which the generator's lag did not move it too far.

A hiccup of the generator costs a figure the slice in which it fell. A slice is a turn of the load, or one second of its
schedule. Slices are left out by their lag alone, the largest first, so that the choice knows neither the engine nor its
latencies; how many are left out depends on the two readings of the figure (see loadtests.samples.validity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import MOST_MOVED, PERCENTILES, figure_counts, samples_needed

_NS = 1_000_000_000
_LAG_QUANTILE = 0.99

Latencies = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class FigureSlices:
    """One figure: its two readings, and the slices that they are of."""

    scheduled: float | None
    """Reading from the scheduled times, in the unit of the latencies; None where the samples are too few."""
    sent: float | None
    """Reading from the sends."""
    used: NDArray[np.bool_]
    """(slices,): those that the readings are of; of an INVALID figure all that have samples."""
    counts: bool | None
    """False: the figure is INVALID, as the lag moved it too far; None: the samples are too few for it."""


def seconds_of(scheduled_ns: NDArray[np.int64], from_ns: int) -> NDArray[np.int64]:
    """The slice of each request of a load without turns: the second of the schedule, counted from `from_ns`."""
    return (scheduled_ns - from_ns) // _NS


def usable_slices(
    scheduled: Latencies, sent: Latencies, slice_of: NDArray[np.integer], slices: int | None = None
) -> dict[str, FigureSlices]:
    """The readings of each figure of MOST_MOVED, and the slices that they are made of.

    `scheduled` and `sent` are latencies of the right answers, (n,), from the scheduled time and from the send, in any
    one unit; `slice_of`, (n,), is the slice of each, from 0; `slices` is how many slices there are, by default the
    largest of `slice_of` and one. A sample that must not count (of a disturbed slice, say) is left out by the caller.

    As long as a figure does not count, the slice with the largest p99 of the lag is left out of it, then the next: at
    most half of the slices that have samples, and never so many that the samples are too few. Where that is not enough
    the figure is INVALID. A closed loop has no schedule to keep: this rule is not for it.
    """
    count = int(slice_of.max(initial=-1)) + 1 if slices is None else slices
    order = _by_lag(scheduled - sent, slice_of)
    place = np.full(count, -1, np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    pair = _Ordered(scheduled, place[slice_of]), _Ordered(sent, place[slice_of])
    whole = {name: _figure(name, *pair, place >= 0) for name in MOST_MOVED}
    decided = {name: figure for name, figure in whole.items() if figure.counts is not False}
    for left_out in range(1, len(order) // 2 + 1):
        if len(decided) == len(whole):
            break
        for values in pair:
            values.leave_out_before(left_out)
        for name in whole.keys() - decided.keys():
            figure = _figure(name, *pair, place >= left_out)
            if figure.counts:
                decided[name] = figure
    return {**whole, **decided}


def reading(name: str, ordered: Latencies) -> float | None:
    """A figure of MOST_MOVED of sorted latencies, in their unit: nearest rank, or the mean; None of too few."""
    size = len(ordered)
    if name == "mean":
        return float(ordered.mean()) if size else None
    quantile = PERCENTILES[name]
    return float(ordered[_rank(size, quantile)]) if size >= samples_needed(quantile) else None


class _Ordered:
    """Latencies in ascending order, and the place at which the slice of each is left out."""

    def __init__(self, values: Latencies, place_of: NDArray[np.int32]) -> None:
        order = np.argsort(values, kind="stable")
        self.values: Latencies = values[order]
        self._place_of = place_of[order]

    def leave_out_before(self, place: int) -> None:
        keep = self._place_of >= place
        self.values, self._place_of = self.values[keep], self._place_of[keep]


def _figure(name: str, scheduled: _Ordered, sent: _Ordered, used: NDArray[np.bool_]) -> FigureSlices:
    first, second = reading(name, scheduled.values), reading(name, sent.values)
    counts = None if first is None or second is None else figure_counts(name, first, second)
    return FigureSlices(first, second, used, counts)


def _by_lag(lag: Latencies, slice_of: NDArray[np.integer]) -> NDArray[np.intp]:
    """The slices that have samples, those with the largest p99 of the lag first; equals by their number."""
    order = np.lexsort((lag, slice_of))
    numbers, begins, sizes = np.unique(slice_of[order], return_index=True, return_counts=True)
    last = begins + np.ceil(_LAG_QUANTILE * sizes).astype(np.intp) - 1
    return np.asarray(numbers[np.argsort(-lag[order][last], kind="stable")], np.intp)


def _rank(size: int, quantile: float) -> int:
    """Place of a quantile among `size` sorted values by nearest rank, from 0."""
    return max(0, math.ceil(quantile * size) - 1)
