"""Which slices a figure leaves out because the load generator sent late, alike for all runs of a round.

The rule of one run is the load generator's own (loadtests.samples.slices). The runs of a round leave out the same
slices, so that neighbours stay neighbours: what one run leaves out of a figure, the others leave out of it too, and
are judged again without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.slices import FigureSlices, usable_slices
from loadtests.samples.validity import MOST_MOVED, figure_counts, moved_by, samples_needed
from servestorm.methods.percentiles import QUANTILES, nearest_rank
from servestorm.methods.samples import Samples

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class LagJudgement:
    """What one run's figures leave out for lag, as in servestorm.methods.slices.SliceUse."""

    late: dict[str, Flags]
    invalid: dict[str, str]


def judge_lag(loads: Sequence[Samples]) -> list[LagJudgement]:
    """The judgement of each run of a round; all have the same slices. A closed loop is not judged: do not give one."""
    judged = [LagJudgement({}, {}) for _ in loads]
    undecided = sorted({name for load in loads for name in _moved(load)}, key=list(MOST_MOVED).index)
    if undecided:
        slices = max(load.use.measured_s.size for load in loads)
        readings = [_Readings(load) for load in loads]
        for name in undecided:
            _judge_figure(name, readings, judged, slices)
    return judged


def _moved(load: Samples) -> list[str]:
    """The figures that do not count over all slices."""
    right = load.right()
    latency_ns = load.latency_ns[right]
    readings = _whole(latency_ns), _whole(latency_ns - load.lag_ns[right])
    return [name for name, value in readings[0].items() if not figure_counts(name, value, readings[1][name])]


def _whole(values: NDArray[np.int64]) -> dict[str, float]:
    """The figures that there are answers enough for. One pass, without sorting: there may be ten million."""
    enough = {name: q for name, q in QUANTILES.items() if values.size >= samples_needed(q)}
    ranks = {name: nearest_rank(values.size, q) for name, q in enough.items()}
    if values.size:
        ranked = np.partition(values, sorted(set(ranks.values()))) if ranks else values
        return {"mean": float(values.mean()), **{name: float(ranked[rank]) for name, rank in ranks.items()}}
    return {}


class _Readings:
    """One run's right answers that count for all figures, in nanoseconds."""

    def __init__(self, load: Samples) -> None:
        right = load.right()
        self._latency_ns = load.latency_ns[right]
        self._sent_ns = self._latency_ns - load.lag_ns[right]
        self._slice_of = load.slice_of()[right]
        self._slices = load.use.measured_s.size
        self.slices = int(np.count_nonzero(np.bincount(self._slice_of, minlength=1)))
        self._without_any: dict[str, FigureSlices] | None = None

    def judge(self, name: str, left_out: Flags) -> FigureSlices:
        """The figure without these slices, and without as many more as it takes."""
        if left_out.any():
            keep = ~left_out[self._slice_of]
            kept = self._latency_ns[keep], self._sent_ns[keep], self._slice_of[keep]
            return usable_slices(*kept, self._slices)[name]
        if self._without_any is None:
            self._without_any = usable_slices(self._latency_ns, self._sent_ns, self._slice_of, self._slices)
        return self._without_any[name]

    def without(self, used: Flags) -> Flags:
        """The slices with an answer that are not used."""
        answered = np.bincount(self._slice_of, minlength=used.size) > 0
        return answered & ~used


def _judge_figure(name: str, runs: Sequence[_Readings], judged: Sequence[LagJudgement], slices: int) -> None:
    """Add the judgement of one figure: runs that are INVALID on their own have no say in what the others leave out."""
    none = np.zeros(slices, np.bool_)
    alone = [run.judge(name, none) for run in runs]
    for figure, one in zip(alone, judged, strict=True):
        if figure.counts is False:
            one.invalid[name] = _reason(name, figure)
    valid = [place for place, figure in enumerate(alone) if figure.counts]
    left_out, found = _agreed(name, [runs[place] for place in valid], none)
    for place, figure in zip(valid, found, strict=True):
        if figure.counts and 2 * int(left_out.sum()) <= runs[place].slices:
            if left_out.any():
                judged[place].late[name] = left_out
        else:
            judged[place].invalid[name] = (
                "the load generator sent late in so many slices of this round that too few are left"
            )


def _agreed(name: str, runs: Sequence[_Readings], left_out: Flags) -> tuple[Flags, list[FigureSlices]]:
    """The slices that all runs leave out, and each run's figure without them."""
    while True:
        found = [run.judge(name, left_out) for run in runs]
        more = [run.without(figure.used) for run, figure in zip(runs, found, strict=True) if figure.counts]
        both = np.logical_or.reduce([left_out, *more])
        if (both == left_out).all():
            return left_out, found
        left_out = both


def _reason(name: str, figure: FigureSlices) -> str:
    assert figure.scheduled is not None and figure.sent is not None
    moved = moved_by(figure.scheduled, figure.sent)
    return (
        f"the load generator sent late: {figure.scheduled / 1e6:.2f} ms from the scheduled times and "
        f"{figure.sent / 1e6:.2f} ms from the sends are {100 * moved:.3g} % apart, over {100 * MOST_MOVED[name]:g} %"
    )
