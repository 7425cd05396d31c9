"""How replicas and latencies followed the load over time, for the report's figure and results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed
from servestorm.analysis.figures import Followed, OverScaling
from servestorm.analysis.run import Run
from servestorm.analysis.scenario import GroupOfRuns
from servestorm.analysis.series import BIN_WIDTHS_NS
from servestorm.methods.autoscaling import Autoscaled
from servestorm.methods.percentiles import QUANTILES, percentile
from servestorm.methods.samples import Samples

MOST_BINS, FEWEST_BINS = 120, 24
BINS_WITH_TAIL: Final = 0.8
"""The percentile that is shown is the largest for which this share of the bins has answers enough."""
TAILS: Final = ("p99", "p95", "p90", "p50")
Latencies = list[NDArray[np.float64]]
"""Milliseconds of right answers, an array a bin."""


def replicas_over_time(runs: GroupOfRuns) -> OverScaling | None:
    """How replicas and latencies followed the load; None where no run has both an autoscaler's events and samples."""
    own = [run for run in runs.runs if run.autoscaling and run.id in runs.samples]
    if not any(runs.samples[run.id].ok.size for run in own):
        return None
    return _over_time(runs.engines, own, runs.samples)


def _over_time(engines: Sequence[str], runs: Sequence[Run], samples: Mapping[str, Samples]) -> OverScaling:
    loads = {engine: [samples[run.id] for run in runs if run.engine == engine] for engine in engines}
    everything = [load for own in loads.values() for load in own if load.ok.size]
    end_ns = max(int(load.scheduled_ns.max()) for load in everything)
    width_ns = _bin_width_ns(loads, end_ns)
    bins = end_ns // width_ns + 1
    begins_s = np.arange(bins) * (width_ns / 1e9)
    # the last bin may be cut short by the end of the load
    lengths_s = np.maximum(np.minimum(begins_s + width_ns / 1e9, end_ns / 1e9) - begins_s, 1e-3)
    offered = [np.bincount(load.scheduled_ns // width_ns, minlength=bins) for load in everything]
    inside = {engine: _by_bin(own, width_ns, bins) for engine, own in loads.items()}
    tail = _tail([values.size for own in inside.values() for values in own])
    scaled = {engine: [r.autoscaling for r in runs if r.engine == engine and r.autoscaling] for engine in engines}
    watched = [one for own in scaled.values() for one in own]
    return OverScaling(
        bin_s=width_ns / 1e9,
        t_s=[round(float(t), 3) for t in begins_s],
        offered_per_s=[float(rate) for rate in np.mean(offered, axis=0) / lengths_s],
        bursts=[(reaction.start_s, reaction.end_s) for reaction in watched[0].reactions],
        watched_s=min(one.watched_s for one in watched),
        tail=tail,
        engines={engine: _followed(inside[engine], QUANTILES[tail], scaled[engine]) for engine in engines},
    )


def _bin_width_ns(loads: Mapping[str, Sequence[Samples]], end_ns: int) -> int:
    """The narrowest width with few enough bins of which most have a median, as long as some bins remain."""
    widths = [width for width in BIN_WIDTHS_NS if end_ns <= MOST_BINS * width] or [BIN_WIDTHS_NS[-1]]
    wide = [width for width in widths if end_ns >= FEWEST_BINS * width] or widths[:1]
    for width in wide:
        inside = [_by_bin(own, width, end_ns // width + 1) for own in loads.values() if own]
        if np.mean([values.size >= samples_needed(0.5) for own in inside for values in own]) >= BINS_WITH_TAIL:
            return width
    return wide[-1]


def _by_bin(loads: Sequence[Samples], width_ns: int, bins: int) -> Latencies:
    """Of whole requests: the objective is a request's."""
    answered = [load for load in loads if load.ok.size]
    place = np.concatenate([np.empty(0, np.int64), *(load.scheduled_ns[load.right()] // width_ns for load in answered)])
    latency_ms = np.concatenate([np.empty(0), *(load.requests_ms() for load in answered)])
    ends = np.cumsum(np.bincount(place.astype(np.int64), minlength=bins))
    return np.split(latency_ms[np.argsort(place, kind="stable")], ends[:-1])


def _tail(sizes: Sequence[int]) -> str:
    """The largest percentile that most bins with any answer have enough of them for."""
    answered = np.array([size for size in sizes if size])
    for name in TAILS[:-1]:
        if answered.size and np.mean(answered >= samples_needed(QUANTILES[name])) >= BINS_WITH_TAIL:
            return name
    return TAILS[-1]


def _followed(inside: Latencies, quantile: float, scaled: Sequence[Autoscaled]) -> Followed:
    return Followed(
        tail_ms=[percentile(values, quantile) for values in inside],
        slowest_ms=[float(values.max()) if values.size else None for values in inside],
        ready=_mean_steps([one.ready for one in scaled]),
        existing=_mean_steps([one.existing for one in scaled]),
    )


def _mean_steps(runs: Sequence[Sequence[tuple[float, int]]]) -> list[tuple[float, float]]:
    """The mean of several step functions, which all begin at 0."""
    changes = sorted({t_s for steps in runs for t_s, _ in steps})
    return [(t_s, sum(_at(steps, t_s) for steps in runs) / len(runs)) for t_s in changes]


def _at(steps: Sequence[tuple[float, int]], t_s: float) -> int:
    return [count for begin_s, count in steps if begin_s <= t_s][-1]
