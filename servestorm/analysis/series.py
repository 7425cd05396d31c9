"""The numbers behind the figures that no table row holds: latency over time, percentile spectrum, fitted law, sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed
from servestorm.analysis.run import Run, SweepPoint
from servestorm.methods.pareto import front
from servestorm.methods.percentiles import nearest_rank, percentile
from servestorm.methods.scaling_law import fit_usl
from servestorm.rundir.samples import Samples, pooled_ms

MOST_BINS, FEWEST_BINS = 60, 6
BINS_WITH_MEDIAN = 0.9
FEWEST = samples_needed(0.5)
"""Answers that a bin needs for a median."""
BIN_WIDTHS_NS = tuple(int(s * 1e9) for s in (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600))
SETTINGS: dict[str, Callable[[int], str]] = {
    "max_batch_size": lambda size: f"server batch {size}" if size > 1 else "no server batch",
    "timeout_us": lambda us: f"{us / 1000:g} ms delay",
    "threads": lambda count: f"{count} thread{'s' if count > 1 else ''}",
    "replicas": lambda count: f"{count} replica{'s' if count > 1 else ''}",
    "images_per_request": lambda count: f"{count} image{'s' if count > 1 else ''} a request",
    "concurrency": lambda count: f"{count} in flight",
}
"""What a sweep varies, in words; only what does vary is told."""
# shares 1 - 10^-x: evenly spaced on the spectrum's axis, from the median to 99.99 %
SPECTRUM = tuple(1 - 10 ** -(math.log10(2) + step * 0.05) for step in range(75))


def figures_of(engines: Sequence[str], runs: Sequence[Run], samples: Mapping[str, Samples]) -> dict[str, Any]:
    """{'over_time', 'spectrum', 'scaling_law', 'sweep'}, each {group: ...}, of the runs given."""
    found: dict[str, Any] = {"over_time": {}, "spectrum": {}, "scaling_law": {}, "sweep": {}}
    for group in dict.fromkeys(run.group for run in runs):
        of = {engine: [run for run in runs if (run.group, run.engine) == (group, engine)] for engine in engines}
        scenario = next(run.scenario for run in runs if run.group == group)
        loads = {engine: [samples[run.id] for run in own if run.id in samples] for engine, own in of.items()}
        if scenario in ("steady", "bursty") and any(loads.values()):
            found["over_time"][group] = _over_time(loads)
            found["spectrum"][group] = {engine: _spectrum(own) for engine, own in loads.items()}
        elif scenario == "scaling":
            found["scaling_law"][group] = {engine: _law(own) for engine, own in of.items()}
        elif scenario == "sweep":
            found["sweep"][group] = _sweep(of)
    return found


def _law(runs: Sequence[Run]) -> dict[str, Any]:
    """Throughput by replicas of every run, and the Universal Scalability Law fitted to it where that can be done."""
    known = [(run.replicas, rate) for run in runs if (rate := run.numbers.get("images_per_s")) is not None]
    law = fit_usl([count for count, _ in known], [rate for _, rate in known])
    names = ("sigma", "kappa", "r2", "peak_replicas")
    return {
        "points": [[count, rate] for count, rate in known],
        "lambda": law.lambda_ if law else None,
        **{name: getattr(law, name) if law else None for name in names},
        "curve": [list(point) for point in law.curve(max(count for count, _ in known))] if law else [],
    }


def _sweep(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[dict[str, Any]]]:
    """Every setting with the median of its VALID loads' throughput and p99, and whether it is on the Pareto front."""
    points = {engine: [point for run in own for point in run.points] for engine, own in runs.items()}
    everything = [point for own in points.values() for point in own]
    varied = [name for name in SETTINGS if len({getattr(point, name) for point in everything}) > 1] or ["concurrency"]
    return {engine: _settings(own, varied) for engine, own in points.items()}


def _settings(points: Sequence[SweepPoint], varied: Sequence[str]) -> list[dict[str, Any]]:
    loads: dict[str, list[SweepPoint]] = {}
    for point in points:
        loads.setdefault(", ".join(SETTINGS[name](getattr(point, name)) for name in varied), []).append(point)
    rows = [
        (label, _median(own, lambda load: load.images_per_s), _median(own, lambda load: load.p99_ms))
        for label, own in loads.items()
    ]
    best = set(front([(rate, p99_ms) for _, rate, p99_ms in rows]))
    return [
        {"label": label, "images_per_s": rate, "p99_ms": p99_ms, "front": place in best}
        for place, (label, rate, p99_ms) in enumerate(rows)
    ]


def _median(loads: Sequence[SweepPoint], value_of: Callable[[SweepPoint], float | None]) -> float | None:
    known = [value for load in loads if load.valid and (value := value_of(load)) is not None]
    return float(np.median(known)) if known else None


def _over_time(groups: dict[str, list[Samples]]) -> dict[str, Any]:
    """Bins of one width: the offered rate, and each engine's median and slowest answer of all its runs together."""
    everything = [sample for group in groups.values() for sample in group]
    end_ns = max((int(sample.scheduled_ns.max()) for sample in everything if sample.ok.size), default=0)
    width_ns = _bin_width_ns(groups, end_ns)
    bins = end_ns // width_ns + 1
    begins_s = np.arange(bins) * (width_ns / 1e9)
    offered = [_counts(sample.scheduled_ns, width_ns, bins) for sample in everything]
    # the last bin may be cut short by the end of the load
    lengths_s = np.minimum(begins_s + width_ns / 1e9, max(end_ns, width_ns // 2) / 1e9) - begins_s
    return {
        "bin_s": width_ns / 1e9,
        "t_s": [round(float(t), 3) for t in begins_s],
        "offered_per_s": [float(rate) for rate in np.mean(offered, axis=0) / np.maximum(lengths_s, 1e-3)],
        "engines": {engine: _binned(group, width_ns, bins) for engine, group in groups.items()},
    }


def _counts(times_ns: NDArray[np.int64], width_ns: int, bins: int) -> NDArray[np.int64]:
    return np.bincount(times_ns // width_ns, minlength=bins)


def _bin_width_ns(groups: dict[str, list[Samples]], end_ns: int) -> int:
    """The narrowest width with few enough bins of which nearly all have a median, as long as some bins remain."""
    widths = [width for width in BIN_WIDTHS_NS if end_ns <= MOST_BINS * width] or [BIN_WIDTHS_NS[-1]]
    step = math.gcd(*widths)
    # counted once, by what every width is a multiple of
    fine = [
        np.sum([_counts(sample.scheduled_ns[sample.ok], step, end_ns // step + 1) for sample in group], axis=0)
        for group in groups.values()
        if group
    ]
    for width in widths:
        if np.mean(np.concatenate([_merged(counts, width // step) for counts in fine]) >= FEWEST) >= BINS_WITH_MEDIAN:
            return width
    return max((width for width in widths if math.ceil(end_ns / width) >= FEWEST_BINS), default=widths[0])


def _merged(counts: NDArray[np.int64], times: int) -> NDArray[np.int64]:
    return np.add.reduceat(counts, np.arange(0, counts.size, times))


def _binned(group: list[Samples], width_ns: int, bins: int) -> dict[str, list[float | None]]:
    if not group:
        return {"median_ms": [None] * bins, "slowest_ms": [None] * bins}
    place = np.concatenate([(sample.scheduled_ns[sample.ok] // width_ns).astype(np.uint16) for sample in group])
    latencies = np.concatenate([sample.image_latency_ms for sample in group])
    ends = np.cumsum(np.bincount(place, minlength=bins))
    # 16-bit numbers are sorted by counting, in linear time
    latencies = latencies[np.argsort(place, kind="stable")]
    inside = np.split(latencies, ends[:-1])
    return {
        "median_ms": [percentile(values, 0.5) for values in inside],
        "slowest_ms": [float(values.max()) if values.size else None for values in inside],
    }


def _spectrum(group: list[Samples]) -> list[list[float]]:
    """[share, ms per image] for every share that the samples suffice for."""
    latencies = pooled_ms(group)
    shares = [share for share in SPECTRUM if latencies.size >= samples_needed(share)]
    return [[share, float(latencies[nearest_rank(latencies.size, share)])] for share in shares]
