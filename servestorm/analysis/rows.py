"""The rows of the results: every figure of every engine, from the runs that count."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed
from servestorm.analysis.metric import Better, Metric, Row, Value
from servestorm.analysis.run import QUOTED, Run
from servestorm.methods.percentiles import QUANTILES, interval, nearest_rank, order_interval, over_runs, welch_p
from servestorm.plan.labels import CONTAINER_PHASES, phases_of, start_of
from servestorm.plan.scenarios import Scaling
from servestorm.rundir.samples import Samples, pooled_ms
from servestorm.rundir.shapes.study import PlanFile


def _start(backend: str) -> tuple[Row, ...]:
    """The rows of a cold start on a backend."""
    return (
        ("total_s", f"{start_of(backend)} to first right answer", "s", "lower"),
        *((f"{phase}_s", label, "s", "lower") for phase, label in phases_of(backend).items()),
        ("server_import_s", "the server's own: importing its libraries", "s", "lower"),
        ("server_load_s", "the server's own: loading the model", "s", "lower"),
        ("server_warmup_s", "the server's own: warm-up", "s", "lower"),
        ("to_steady_s", f"{start_of(backend)} to steady answers", "s", "lower"),
        ("deployment_s", "deployment time: from the artifact to the first right answer", "s", "lower"),
        ("rss_mib", "memory after the start", "MiB", "lower"),
    )


_REQUEST: tuple[Row, ...] = tuple(
    (f"request_{name}", f"{name} latency of a request", "ms", "lower") for name in ("p50", "p99")
)
_LOAD: tuple[Row, ...] = (
    ("mean_ms", "mean latency", "ms per image", "lower"),
    *_REQUEST,
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
_BURSTS: tuple[Row, ...] = (
    ("burst_violations_percent", "answers in bursts over the objective, or none", "%", "lower"),
    ("burst_queue_peak", "most requests under way at once", "requests", "lower"),
    ("burst_recover_s", "time to recover after a burst", "s", "lower"),
)
_AUTOSCALING: tuple[Row, ...] = (
    ("mean_ms", "mean latency", "ms per image", "lower"),
    ("images_per_s", "throughput", "images/s", "higher"),
    ("failed_percent", "failed or wrong answers", "%", "lower"),
    ("violations_percent", "answers over the objective, or none", "%", "lower"),
    ("decision_s", "burst's onset to the autoscaler's decision", "s", "lower"),
    ("ready_s", "burst's onset to the first new replica ready", "s", "lower"),
    ("all_ready_s", "burst's onset to the last new replica ready", "s", "lower"),
    ("recover_s", "burst's onset to answers within the objective again, at the longest", "s", "lower"),
    ("down_decision_s", "last burst's end to the first replica given up", "s", "lower"),
    ("down_gone_s", "last burst's end to the least replicas", "s", "lower"),
    ("replica_seconds", "time that replicas existed, summed", "replica-seconds", "lower"),
    ("replicas_mean", "replicas that existed, mean", "replicas", "lower"),
    ("ready_percent", "share of that time in which they were ready", "%", "higher"),
)
_CAPACITY: tuple[Row, ...] = (
    ("images_per_s", "largest rate under the objective, that held twice", "images/s", "higher"),
    ("crossing_images_per_s", "rate at which p99 meets the objective, estimated", "images/s", "higher"),
)
_OPTIONAL = {
    "crossing_images_per_s",
    *(name for name, *_ in (*_REQUEST, *_BURSTS)),
    *(f"server_{name}_s" for name in ("import", "load", "warmup")),
    *(f"{phase}_s" for phase in CONTAINER_PHASES),
    *(f"{way}_kib_per_1000" for way in ("disk_read", "disk_written", "sent", "received")),
    "gpu_j_per_image",
    "gpu_percent",
    "gpu_memory_mib",
    "steady_s",
    "to_steady_s",
}
"""Rows that are left out where no engine has a figure."""
_SHARES = {"failed_percent", "burst_violations_percent", "violations_percent", "ready_percent", "gpu_percent"}
"""Rows that cannot be over 100 %."""


class Rows:
    """Groups the runs that count, and makes the rows."""

    def __init__(self, engines: Sequence[str], runs: Sequence[Run], samples: Mapping[str, Samples]) -> None:
        self._engines, self._runs, self._samples = engines, runs, samples

    def of(self, group: str, plan: PlanFile) -> Iterable[Metric]:
        """The rows of one group."""
        scenario = group.partition("[")[0]
        if scenario == "scaling" and plan.scaling:
            yield from self._scaling(group, plan.scaling)
        elif scenario in ("steady", "bursty"):
            yield from (self._percentile(group, name) for name in QUOTED)
            yield from self._rows(group, [*_LOAD, *(_BURSTS if scenario == "bursty" else ())])
        elif scenario == "autoscaling":
            yield from (self._percentile(group, name) for name in QUOTED)
            yield from self._rows(group, _AUTOSCALING)
        elif scenario in ("coldstart", "capacity"):
            yield from self._rows(group, _start(plan.backend) if scenario == "coldstart" else _CAPACITY)

    def _rows(self, group: str, rows: Sequence[Row]) -> Iterable[Metric]:
        for name, label, unit, better in rows:
            metric = self._row(group, name, label, unit, better)
            if name.startswith("request_"):
                metric = self._request(metric, name)
            if name not in _OPTIONAL or any(value.n for value in metric.values.values()):
                yield metric

    def _of(self, group: str, engine: str) -> list[Run]:
        return [run for run in self._runs if run.group == group and run.engine == engine]

    def _row(self, group: str, name: str, label: str, unit: str, better: Better) -> Metric:
        runs = {e: [run.numbers.get(name) for run in self._of(group, e)] for e in self._engines}
        return self._metric(group, name, label, unit, better, runs)

    def _percentile(self, group: str, name: str) -> Metric:
        """The quantile of all samples of the counted runs together; its runs' own values give sd and p."""
        row = self._row(group, name, f"{name} latency".replace("p999", "p99.9"), "ms per image", "lower")
        values = {}
        for engine, value in row.values.items():
            pooled = pooled_ms([self._samples[run.id] for run in self._of(group, engine) if run.id in self._samples])
            enough = pooled.size >= samples_needed(QUANTILES[name])
            exact = float(pooled[nearest_rank(pooled.size, QUANTILES[name])]) if enough else None
            values[engine] = _told(replace(value, value=exact, samples=int(pooled.size)), pooled, QUANTILES[name])
        return replace(row, values=values)

    def _request(self, row: Metric, name: str) -> Metric:
        """The row with an interval also where one run alone has the percentile."""
        q, values = QUANTILES[name.removeprefix("request_")], {}
        for engine, value in row.values.items():
            runs = [run for run in self._of(row.group, engine) if run.numbers.get(name) is not None]
            ordered = _requests_ms([self._samples[run.id] for run in runs if not value.ci])
            values[engine] = _told(value, ordered, q)
        return replace(row, values=values)

    def _scaling(self, group: str, plan: Scaling) -> Iterable[Metric]:
        counts, what = plan.replicas, plan.measure
        for count in counts:
            label = f"{what}, {count} replica{'s' if count > 1 else ''}"
            runs = {engine: self._rates(group, engine, count) for engine in self._engines}
            yield self._metric(group, f"images_per_s_x{count}", label, "images/s", "higher", runs)
        for count in counts[1:]:
            factors = {engine: self._factors(group, engine, counts[0], count) for engine in self._engines}
            label = f"speed-up, {count} against {counts[0]}"
            yield self._metric(group, f"factor_x{count}", label, "×", "higher", factors)
            shares = {
                e: [None if f is None else 100 * f * counts[0] / count for f in found] for e, found in factors.items()
            }
            label = f"efficiency, {count} replicas"
            yield self._metric(group, f"efficiency_x{count}", label, "%", "higher", shares)
            evenness = {e: self._evenness(group, e, count) for e in self._engines}
            label = f"busiest of {count} replicas against their mean"
            yield self._metric(group, f"unevenness_x{count}", label, "×", "lower", evenness)

    def _rates(self, group: str, engine: str, replicas: int) -> list[float | None]:
        runs = [run for run in self._of(group, engine) if run.replicas == replicas]
        return [run.numbers.get("images_per_s") for run in runs]

    def _evenness(self, group: str, engine: str, replicas: int) -> list[float | None]:
        runs = [run for run in self._of(group, engine) if run.replicas == replicas]
        return [run.numbers.get("largest_over_mean") for run in runs]

    def _factors(self, group: str, engine: str, base: int, count: int) -> list[float | None]:
        """Of each repetition that has both: its own throughput ratio."""
        found = {(r.repetition, r.replicas): r.numbers.get("images_per_s") for r in self._of(group, engine)}
        repetitions = sorted({repetition for repetition, _ in found})
        pairs = [(found.get((r, base)), found.get((r, count))) for r in repetitions]
        return [many / one for one, many in pairs if one and many]

    def _metric(
        self, group: str, name: str, label: str, unit: str, better: Better, runs: dict[str, list[float | None]]
    ) -> Metric:
        """A row from each engine's values by run."""
        values = {}
        for engine, numbers in runs.items():
            over, valid = over_runs(numbers), all(run.counts for run in self._of(group, engine))
            ci = interval(numbers, most=100.0) if name in _SHARES else interval(numbers)
            value = Value(over.mean, over.mean, over.sd, over.n, list(over.runs), valid=valid)
            values[engine] = replace(value, ci=ci, ci_from="runs") if ci else value
        pairs = itertools.combinations(runs, 2)
        p = {f"{a}|{b}": welch_p(runs[a], runs[b]) if values[a].valid and values[b].valid else None for a, b in pairs}
        return Metric(f"{group}.{name}", group.partition("[")[0], group, label, unit, better, values, p)


def _requests_ms(group: Sequence[Samples]) -> NDArray[np.float64]:
    """Latencies of the right answers, ms per request, sorted."""
    return np.sort(np.concatenate([np.empty(0), *(samples.latency_ns[samples.ok] / 1e6 for samples in group)]))


def _told(value: Value, ordered: NDArray[np.float64], q: float) -> Value:
    """A percentile's value, with the interval of its sorted samples where its runs do not give one."""
    if value.ci or value.value is None:
        return value
    ci = order_interval(ordered, q)
    return replace(value, ci=ci, ci_from="samples") if ci else value
