"""How rows of the results are made: every engine's figure, from the runs that count."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed
from servestorm.analysis.metric import Better, Metric, Row, Value
from servestorm.analysis.run import QUOTED, Run
from servestorm.methods.disturbance import worst
from servestorm.methods.percentiles import QUANTILES, interval, nearest_rank, order_interval, over_runs, welch_p
from servestorm.rundir.samples import Samples, pooled_ms

REQUEST_ROWS: tuple[Row, ...] = tuple(
    (f"request_{name}", f"{name} latency of a request", "ms", "lower") for name in ("p50", "p99")
)
LOAD_ROWS: tuple[Row, ...] = (
    ("mean_ms", "mean latency", "ms per image", "lower"),
    *REQUEST_ROWS,
    ("images_per_s", "throughput", "images/s", "higher"),
    ("failed_percent", "failed or wrong answers", "%", "lower"),
    ("cpu_ms_per_image", "CPU time of the servers", "ms per image", "lower"),
    ("rss_peak_mib", "peak memory of the servers", "MiB", "lower"),
    ("disk_read_kib_per_1000", "read from disk", "KiB per 1,000 images", "lower"),
    ("disk_written_kib_per_1000", "written to disk", "KiB per 1,000 images", "lower"),
    ("sent_kib_per_1000", "network, to the servers", "KiB per 1,000 images", "lower"),
    ("received_kib_per_1000", "network, from the servers", "KiB per 1,000 images", "lower"),
    ("gpu_j_per_image", "energy of the machine's GPUs", "J per image", "lower"),
    ("gpu_percent", "use of the machine's GPUs at the end, mean", "%", "lower"),
    ("gpu_memory_mib", "memory of the machine's GPUs at the end", "MiB", "lower"),
)
_OPTIONAL = {
    *(name for name, *_ in REQUEST_ROWS),
    *(f"{way}_kib_per_1000" for way in ("disk_read", "disk_written", "sent", "received")),
    "gpu_j_per_image",
    "gpu_percent",
    "gpu_memory_mib",
}
"""Rows of any load that are left out where no engine has a figure."""
_SHARES = {"failed_percent", "burst_violations_percent", "violations_percent", "ready_percent", "gpu_percent"}
"""Rows that cannot be over 100 %."""


class Rows:
    """Groups the runs that count, and makes the rows."""

    def __init__(self, engines: Sequence[str], runs: Sequence[Run], samples: Mapping[str, Samples]) -> None:
        self.engines, self._runs, self._samples = engines, runs, samples

    def of_load(self, group: str, further: Sequence[Row] = (), optional: Collection[str] = ()) -> Iterable[Metric]:
        """The percentiles, the rows of any load, and further ones; `optional` as in `listed`."""
        yield from self.percentiles(group)
        yield from self.listed(group, [*LOAD_ROWS, *further], optional)

    def percentiles(self, group: str) -> Iterable[Metric]:
        """The latency percentiles per image, from all samples of the group."""
        return (self._percentile(group, name) for name in QUOTED)

    def listed(self, group: str, rows: Sequence[Row], optional: Collection[str] = ()) -> Iterable[Metric]:
        """The rows of these names; those of `optional` are left out where no engine has a figure."""
        for name, label, unit, better in rows:
            metric = self._row(group, name, label, unit, better)
            if name.startswith("request_"):
                metric = self._request(metric, name)
            if (name not in _OPTIONAL and name not in optional) or any(value.n for value in metric.values.values()):
                yield metric

    def runs_of(self, group: str, engine: str) -> list[Run]:
        """The counted runs of a group on an engine."""
        return [run for run in self._runs if run.group == group and run.engine == engine]

    def _row(self, group: str, name: str, label: str, unit: str, better: Better) -> Metric:
        runs = {e: [run.numbers.get(name) for run in self.runs_of(group, e)] for e in self.engines}
        return self.metric(group, name, label, unit, better, runs)

    def _percentile(self, group: str, name: str) -> Metric:
        """The quantile of all samples of the counted runs together; its runs' own values give sd and p."""
        row = self._row(group, name, f"{name} latency".replace("p999", "p99.9"), "ms per image", "lower")
        values = {}
        for engine, value in row.values.items():
            pooled = pooled_ms(
                [self._samples[run.id] for run in self.runs_of(group, engine) if run.id in self._samples]
            )
            enough = pooled.size >= samples_needed(QUANTILES[name])
            exact = float(pooled[nearest_rank(pooled.size, QUANTILES[name])]) if enough else None
            values[engine] = _bounded(replace(value, value=exact, samples=int(pooled.size)), pooled, QUANTILES[name])
        return replace(row, values=values)

    def _request(self, row: Metric, name: str) -> Metric:
        """The row with an interval also where one run alone has the percentile."""
        q, values = QUANTILES[name.removeprefix("request_")], {}
        for engine, value in row.values.items():
            runs = [run for run in self.runs_of(row.group, engine) if run.numbers.get(name) is not None]
            ordered = _requests_ms([self._samples[run.id] for run in runs if not value.ci])
            values[engine] = _bounded(value, ordered, q)
        return replace(row, values=values)

    def metric(
        self, group: str, name: str, label: str, unit: str, better: Better, runs: dict[str, list[float | None]]
    ) -> Metric:
        """A row from each engine's values by run."""
        values = {}
        for engine, numbers in runs.items():
            over, used = over_runs(numbers), self.runs_of(group, engine)
            valid = all(run.valid is not False for run in used)
            disturbed = worst(run.disturbed for run in used if run.disturbed) if valid else None
            ci = interval(numbers, most=100.0) if name in _SHARES else interval(numbers)
            value = Value(over.mean, over.mean, over.sd, over.n, list(over.runs), valid=valid, disturbed=disturbed)
            values[engine] = replace(value, ci=ci, ci_from="runs") if ci else value
        pairs = itertools.combinations(runs, 2)
        p = {f"{a}|{b}": welch_p(runs[a], runs[b]) if values[a].counts and values[b].counts else None for a, b in pairs}
        return Metric(f"{group}.{name}", group.partition("[")[0], group, label, unit, better, values, p)


def _requests_ms(group: Sequence[Samples]) -> NDArray[np.float64]:
    """Latencies of the right answers, ms per request, sorted."""
    return np.sort(np.concatenate([np.empty(0), *(samples.latency_ns[samples.ok] / 1e6 for samples in group)]))


def _bounded(value: Value, ordered: NDArray[np.float64], q: float) -> Value:
    """A percentile's value, with the interval of its sorted samples where its runs do not give one."""
    if value.ci or value.value is None:
        return value
    ci = order_interval(ordered, q)
    return replace(value, ci=ci, ci_from="samples") if ci else value
