"""Latencies of a group of runs under open-loop load over time, and by percentile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed
from servestorm.analysis.figures import Figures, OverTime, Series
from servestorm.analysis.latency_split import mean_splits
from servestorm.analysis.scenario import GroupOfRuns
from servestorm.methods.percentiles import QUANTILES, nearest_rank, over_runs, percentile
from servestorm.methods.samples import Samples

MOST_BINS, FEWEST_BINS = 60, 6
BINS_WITH_MEDIAN = 0.9
FEWEST = samples_needed(0.5)
"""Answers that a bin needs for a median."""
BIN_WIDTHS_NS = tuple(int(s * 1e9) for s in (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600))
# shares 1 - 10^-x: evenly spaced on the spectrum's axis, from the median to 99.99 %
_EVEN = (round(1 - 10 ** -(math.log10(2) + step * 0.05), 12) for step in range(75))
_NEAREST = 1e-4
"""An even share nearer to a percentile of the rows would have its name."""
SPECTRUM = tuple(
    sorted({*(s for s in _EVEN if min(abs(s - q) for q in QUANTILES.values()) > _NEAREST), *QUANTILES.values()})
)
"""Shares of the spectrum: the percentiles of the rows are among them, so that both can be held against each other."""


def add_load_figures(figures: Figures, runs: GroupOfRuns) -> None:
    """Latency over time, the percentile spectrum and the parts of a mean request of a group under open-loop load."""
    loads = runs.samples_by_engine()
    if any(loads.values()):
        figures.over_time[runs.group] = over_time(loads)
        figures.spectrum[runs.group] = {engine: spectrum(own) for engine, own in loads.items()}
    if splits := mean_splits(runs.cells_by_engine()):
        figures.split[runs.group] = splits


def over_time(groups: Mapping[str, Sequence[Samples]]) -> OverTime:
    """Bins of one width: the offered rate, and each engine's median and slowest answer of all its runs together.

    The rate is that of the whole schedule; answers are of the slices that count for all figures.
    """
    everything = [sample for group in groups.values() for sample in group]
    end_ns = max((int(sample.scheduled_ns.max()) for sample in everything if sample.ok.size), default=0)
    width_ns = _bin_width_ns(groups, end_ns)
    bins = end_ns // width_ns + 1
    begins_s = np.arange(bins) * (width_ns / 1e9)
    offered = [_counts(sample.scheduled_ns, width_ns, bins) for sample in everything]
    # the last bin may be cut short by the end of the load
    lengths_s = np.minimum(begins_s + width_ns / 1e9, max(end_ns, width_ns // 2) / 1e9) - begins_s
    return OverTime(
        bin_s=width_ns / 1e9,
        t_s=[round(float(t), 3) for t in begins_s],
        offered_per_s=[float(rate) for rate in np.mean(offered, axis=0) / np.maximum(lengths_s, 1e-3)],
        engines={engine: _binned(group, width_ns, bins) for engine, group in groups.items()},
    )


def _counts(times_ns: NDArray[np.int64], width_ns: int, bins: int) -> NDArray[np.int64]:
    return np.bincount(times_ns // width_ns, minlength=bins)


def _bin_width_ns(groups: Mapping[str, Sequence[Samples]], end_ns: int) -> int:
    """The narrowest width with few enough bins of which nearly all have a median, as long as some bins remain."""
    widths = [width for width in BIN_WIDTHS_NS if end_ns <= MOST_BINS * width] or [BIN_WIDTHS_NS[-1]]
    step = math.gcd(*widths)
    # counted once, by what every width is a multiple of
    fine = [
        np.sum([_counts(sample.scheduled_ns[sample.right()], step, end_ns // step + 1) for sample in group], axis=0)
        for group in groups.values()
        if group
    ]
    for width in widths:
        if np.mean(np.concatenate([_merged(counts, width // step) for counts in fine]) >= FEWEST) >= BINS_WITH_MEDIAN:
            return width
    return max((width for width in widths if math.ceil(end_ns / width) >= FEWEST_BINS), default=widths[0])


def _merged(counts: NDArray[np.int64], times: int) -> NDArray[np.int64]:
    return np.add.reduceat(counts, np.arange(0, counts.size, times))


def _binned(group: Sequence[Samples], width_ns: int, bins: int) -> Series:
    if not group:
        return Series([None] * bins, [None] * bins)
    place = np.concatenate([(sample.scheduled_ns[sample.right()] // width_ns).astype(np.uint16) for sample in group])
    latencies = np.concatenate([sample.image_latency_ms for sample in group])
    ends = np.cumsum(np.bincount(place, minlength=bins))
    # 16-bit numbers are sorted by counting, in linear time
    latencies = latencies[np.argsort(place, kind="stable")]
    inside = np.split(latencies, ends[:-1])
    return Series(
        median_ms=[percentile(values, 0.5) for values in inside],
        slowest_ms=[float(values.max()) if values.size else None for values in inside],
    )


def spectrum(group: Sequence[Samples]) -> list[tuple[float, float]]:
    """[share, ms per image] for every share that some run has answers enough for: the mean over those runs.

    A quantile averaged over runs is that of the typical run, where pooled answers would mix the differences between
    runs into the tail (R. Ratcliff, "Group reaction time distributions and an analysis of distribution statistics",
    Psychological Bulletin 86, 1979).
    """
    by_run = [_quantiles_ms(samples) for samples in group]
    means = ((share, over_runs([own.get(share) for own in by_run]).mean) for share in SPECTRUM)
    return [(share, mean_ms) for share, mean_ms in means if mean_ms is not None]


def _quantiles_ms(samples: Samples) -> dict[float, float]:
    """The run's own quantiles, ms per image, of the shares that its answers suffice for.

    A share is of the slices that count for the next percentile of the rows, and missing where that or the one before
    is INVALID.
    """
    quantiles: dict[float, float] = {}
    sorted_ms: dict[str | None, NDArray[np.float64]] = {}
    for share in SPECTRUM:
        figure = next((name for name, quantile in QUANTILES.items() if share <= quantile), "p999")
        before = [name for name, quantile in QUANTILES.items() if quantile <= share][-1:]
        if not samples.use.invalid.keys().isdisjoint([figure, *before]):
            continue
        slices_of = figure if figure in samples.use.late else None
        if slices_of not in sorted_ms:
            sorted_ms[slices_of] = np.sort(samples.latencies_ms(slices_of))
        latencies = sorted_ms[slices_of]
        if latencies.size >= samples_needed(share):
            quantiles[share] = float(latencies[nearest_rank(latencies.size, share)])
    return quantiles
