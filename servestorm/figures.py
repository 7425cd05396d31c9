"""The numbers behind the figures that no table row holds: latency over time, and the percentile spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.summary import samples_needed
from servestorm.measures import Run
from servestorm.samples import Samples
from servestorm.statistics import percentile

MOST_BINS, FEWEST_BINS = 60, 6
BINS_WITH_MEDIAN = 0.9
BIN_WIDTHS_S = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
# shares 1 - 10^-x: evenly spaced on the spectrum's axis, from the median to 99.99 %
SPECTRUM = tuple(1 - 10 ** -(math.log10(2) + step * 0.05) for step in range(75))


def figures_of(engines: Sequence[str], runs: Sequence[Run], samples: dict[str, Samples]) -> dict[str, Any]:
    """{'over_time': {scenario: ...}, 'spectrum': {scenario: ...}} of the runs given."""
    over_time, spectrum = {}, {}
    for scenario in ("steady", "bursty"):
        groups = {
            engine: [samples[run.id] for run in runs if _belongs(run, scenario, engine) and run.id in samples]
            for engine in engines
        }
        if any(groups.values()):
            over_time[scenario] = _over_time(groups)
            spectrum[scenario] = {engine: _spectrum(group) for engine, group in groups.items()}
    return {"over_time": over_time, "spectrum": spectrum}


def _belongs(run: Run, scenario: str, engine: str) -> bool:
    return run.scenario == scenario and run.engine == engine


def _over_time(groups: dict[str, list[Samples]]) -> dict[str, Any]:
    """Bins of one width: the offered rate, and each engine's median and slowest answer of all its runs together."""
    everything = [sample for group in groups.values() for sample in group]
    end_s = max((float(sample.scheduled_s.max()) for sample in everything if sample.ok.size), default=0.0)
    width_s = _bin_width_s(groups, end_s)
    bins = max(1, math.ceil(end_s / width_s + 1e-9))
    edges = np.arange(bins + 1, dtype=np.float64) * float(width_s)
    offered = [np.histogram(sample.scheduled_s, edges)[0] for sample in everything]
    # the last bin may be cut short by the end of the load
    lengths = np.minimum(edges[1:], max(end_s, width_s * 0.5)) - edges[:-1]
    return {
        "bin_s": width_s,
        "t_s": [round(float(t), 3) for t in edges[:-1]],
        "offered_per_s": [float(rate) for rate in np.mean(offered, axis=0) / np.maximum(lengths, 1e-3)],
        "engines": {engine: _binned(group, edges) for engine, group in groups.items()},
    }


def _bin_width_s(groups: dict[str, list[Samples]], end_s: float) -> float:
    """The narrowest width with few enough bins of which nearly all have a median, as long as some bins remain."""
    widths = [width for width in BIN_WIDTHS_S if end_s / width <= MOST_BINS] or [BIN_WIDTHS_S[-1]]
    for width in widths:
        edges = np.arange(math.ceil(end_s / width + 1e-9) + 1) * width
        counts = [sum(np.histogram(s.scheduled_s[s.ok], edges)[0] for s in group) for group in groups.values() if group]
        if np.mean(np.concatenate(counts) >= samples_needed(0.5)) >= BINS_WITH_MEDIAN:
            return width
    return max((width for width in widths if math.ceil(end_s / width) >= FEWEST_BINS), default=widths[0])


def _binned(group: list[Samples], edges: NDArray[np.floating[Any]]) -> dict[str, list[float | None]]:
    if not group:
        return {"median_ms": [None] * (len(edges) - 1), "slowest_ms": [None] * (len(edges) - 1)}
    times = np.concatenate([sample.scheduled_s[sample.ok] for sample in group])
    latencies = np.concatenate([sample.image_latency_ms for sample in group])
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    inside = [latencies[place == index] for index in range(len(edges) - 1)]
    return {
        "median_ms": [percentile(values, 0.5) for values in inside],
        "slowest_ms": [float(values.max()) if values.size else None for values in inside],
    }


def _spectrum(group: list[Samples]) -> list[list[float]]:
    """[share, ms per image] for every share that the samples suffice for."""
    if not group:
        return []
    latencies = np.sort(np.concatenate([sample.image_latency_ms for sample in group]))
    points = []
    for share in SPECTRUM:
        if latencies.size < samples_needed(share):
            break
        value = percentile(latencies, share)
        assert value is not None
        points.append([share, value])
    return points
