"""How rows of the results are made: every engine's figure, from the runs that count.

A figure is the mean over runs, and each run's own value is computed from its samples. So a difference between two
printed figures is the difference that their verdict judges, and a standard deviation or an interval is of the figure
beside which it stands. See docs/adr/0004-studies-and-verdicts.md and docs/explanation/statistics.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed
from servestorm.analysis.metric import Metric, Row, Source, Value
from servestorm.analysis.pairing import p_of, rounds_of
from servestorm.analysis.run import QUOTED, Run
from servestorm.methods.disturbance import worst
from servestorm.methods.percentiles import QUANTILES, interval, nearest_rank, order_interval, over_runs
from servestorm.methods.run_figures import P99_CLAIM
from servestorm.methods.samples import Samples, pooled_ms

PERCENTILE_ROWS: Final[tuple[Row, ...]] = tuple(
    Row(
        name,
        f"{name} latency".replace("p999", "p99.9"),
        "ms per image",
        "lower",
        f"{100 * QUANTILES[name]:g}th percentile (nearest rank) of the latencies of right answers after the warm-up, "
        "each from its scheduled time and divided by its images",
    )
    for name in QUOTED
)
REQUEST_ROWS: Final[tuple[Row, ...]] = tuple(
    Row(
        f"request_{name}",
        f"{name} latency of a request",
        "ms",
        "lower",
        f"{100 * QUANTILES[name]:g}th percentile (nearest rank) of the latencies of whole requests; only where a "
        "request holds several images",
    )
    for name in ("p50", "p99")
)
P99_CLAIM_ROW: Final = Row(
    P99_CLAIM,
    "p99 latency that may be promised",
    "ms per image",
    "lower",
    "smallest answer that p99 does not exceed with 99 % confidence, by the early-stopping rule of MLPerf's LoadGen, in "
    "which late answers that come in a bunch count once; of several runs the largest, and none if a run has none",
)
MEAN_LATENCY: Final = Row(
    "mean_ms",
    "mean latency",
    "ms per image",
    "lower",
    "mean of the latencies of right answers after the warm-up, each divided by its images",
)
THROUGHPUT: Final = Row(
    "images_per_s",
    "throughput",
    "images/s",
    "higher",
    "images of right answers after the warm-up, by the measured time until the last of them",
)
FAILED: Final = Row(
    "failed_percent",
    "failed or wrong answers",
    "%",
    "lower",
    "requests scheduled after the warm-up that got no right answer, as a share of them all",
)
_WHOLE_LOAD: Final = "over the whole load, by the right answers' images; both hold the warm-up"
LOAD_ROWS: Final[tuple[Row, ...]] = (
    MEAN_LATENCY,
    *REQUEST_ROWS,
    THROUGHPUT,
    FAILED,
    Row(
        "cpu_ms_per_image",
        "CPU time of the servers",
        "ms per image",
        "lower",
        f"CPU time of all the servers' processes {_WHOLE_LOAD}",
    ),
    Row(
        "rss_peak_mib",
        "peak memory of the servers",
        "MiB",
        "lower",
        "largest resident memory of each of the servers' processes since its start, summed",
    ),
    Row(
        "disk_read_kib_per_1000",
        "read from disk",
        "KiB per 1,000 images",
        "lower",
        f"bytes that the servers' processes read from disk {_WHOLE_LOAD}",
    ),
    Row(
        "disk_written_kib_per_1000",
        "written to disk",
        "KiB per 1,000 images",
        "lower",
        f"bytes that the servers' processes wrote to disk {_WHOLE_LOAD}",
    ),
    Row(
        "sent_kib_per_1000",
        "network, to the servers",
        "KiB per 1,000 images",
        "lower",
        f"bytes of all requests {_WHOLE_LOAD}",
    ),
    Row(
        "received_kib_per_1000",
        "network, from the servers",
        "KiB per 1,000 images",
        "lower",
        f"bytes of all answers {_WHOLE_LOAD}",
    ),
    Row(
        "gpu_j_per_image",
        "energy of the machine's GPUs",
        "J per image",
        "lower",
        f"energy of all GPUs of the machine {_WHOLE_LOAD}",
    ),
    Row(
        "gpu_percent",
        "use of the machine's GPUs at the end, mean",
        "%",
        "lower",
        "utilisation at the end of the load, mean of the machine's GPUs",
    ),
    Row(
        "gpu_memory_mib",
        "memory of the machine's GPUs at the end",
        "MiB",
        "lower",
        "memory in use at the end of the load, sum of the machine's GPUs",
    ),
)
_OPTIONAL = {
    *(row.name for row in REQUEST_ROWS),
    *(f"{way}_kib_per_1000" for way in ("disk_read", "disk_written", "sent", "received")),
    "gpu_j_per_image",
    "gpu_percent",
    "gpu_memory_mib",
}
"""Rows of any load that are left out where no engine has a figure."""
_SHARES = {
    "failed_percent",
    "burst_violations_percent",
    "violations_percent",
    "ready_percent",
    "gpu_percent",
    *(f"{name}_percent" for name in ("top1", "top5", "training_top1", "precision", "recall", "f1", "cpu")),
}
"""Rows that cannot be over 100 %."""
Latencies = Callable[[Sequence[Samples], str], NDArray[np.float64]]
"""From samples of several runs to the sorted latencies, in ms, of the right answers that a percentile is of."""


class Rows:
    """Groups the runs that count, and makes the rows."""

    def __init__(
        self, engines: Sequence[str], runs: Sequence[Run], samples: Mapping[str, Samples], *, interleaved: bool = False
    ) -> None:
        """`interleaved`: the engines of a round took turns."""
        self.engines, self._runs, self._samples, self._interleaved = engines, runs, samples, interleaved

    def of_load(self, group: str, further: Sequence[Row] = (), optional: Collection[str] = ()) -> Iterable[Metric]:
        """The percentiles, the rows of any load, and further ones; `optional` as in `listed`."""
        yield from self.percentiles(group)
        yield self.largest(group, P99_CLAIM_ROW)
        yield from self.listed(group, [*LOAD_ROWS, *further], optional)

    def percentiles(self, group: str) -> Iterable[Metric]:
        """The latency percentiles per image."""
        return (self._percentile(group, row, row.name, pooled_ms) for row in PERCENTILE_ROWS)

    def listed(self, group: str, rows: Sequence[Row], optional: Collection[str] = ()) -> Iterable[Metric]:
        """These rows; those named in `optional` are left out where no engine has a figure."""
        for row in rows:
            if row in REQUEST_ROWS:
                metric = self._percentile(group, row, row.name.removeprefix("request_"), _requests_ms)
            else:
                metric = self._of_runs(group, row)
            may_lack = row.name in _OPTIONAL or row.name in optional
            if not may_lack or any(value.value is not None for value in metric.values.values()):
                yield metric

    def largest(self, group: str, row: Row) -> Metric:
        """A row of claims: each engine's is the largest of its runs, None where a run has none. They are not tested."""
        metric = self._of_runs(group, row)
        values = {engine: _largest(value) for engine, value in metric.values.items()}
        return replace(metric, values=values, p=dict.fromkeys(metric.p))

    def runs_of(self, group: str, engine: str) -> list[Run]:
        """The counted runs of a group on an engine."""
        return [run for run in self._runs if run.group == group and run.engine == engine]

    def metric(self, group: str, row: Row, runs: Mapping[str, Sequence[float | None]]) -> Metric:
        """A row from each engine's values by run."""
        values = {engine: self._value(group, engine, row.name, numbers) for engine, numbers in runs.items()}
        scenario = group.partition("[")[0]
        p = {f"{a}|{b}": self._p(scenario, values[a], values[b]) for a, b in itertools.combinations(runs, 2)}
        key = f"{group}.{row.name}"
        return Metric(key, scenario, group, row.label, row.unit, row.better, row.definition, values, p)

    def _p(self, scenario: str, left: Value, right: Value) -> float | None:
        return p_of(left, right, rounds_of(scenario, left, right, interleaved=self._interleaved))

    def _value(self, group: str, engine: str, name: str, numbers: Sequence[float | None]) -> Value:
        over, used = over_runs(numbers), self.runs_of(group, engine)
        valid = all(run.valid is not False for run in used)
        if not over.n:  # the generator's lag left no run that has the figure
            valid = valid and not any(name in run.invalid_figures for run in used)
        disturbed = worst(run.disturbed for run in used if run.disturbed) if valid else None
        value_from: Source | None = "runs" if over.n else None
        rounds = [run.repetition for run in used]
        if len(rounds) != len(numbers) or len(set(rounds)) != len(rounds):
            rounds = []  # as of a replica count, or of a ratio within a repetition
        value = Value(
            over.mean,
            over.sd,
            over.n,
            list(over.runs),
            valid=valid,
            value_from=value_from,
            disturbed=disturbed,
            rounds=rounds,
        )
        ci = interval(numbers, most=100.0) if name in _SHARES else interval(numbers)
        return replace(value, ci=ci, ci_from="runs") if ci else value

    def _of_runs(self, group: str, row: Row) -> Metric:
        return self.metric(
            group, row, {e: [run.numbers.get(row.name) for run in self.runs_of(group, e)] for e in self.engines}
        )

    def _percentile(self, group: str, row: Row, figure: str, latencies: Latencies) -> Metric:
        """The row, with what only samples tell where fewer than two runs have the percentile."""
        metric = self._of_runs(group, row)
        values = {
            engine: self._with_samples(value, row.name, self.runs_of(group, engine), figure, latencies)
            for engine, value in metric.values.items()
        }
        return replace(metric, values=values)

    def _with_samples(self, value: Value, name: str, runs: Sequence[Run], figure: str, latencies: Latencies) -> Value:
        q = QUANTILES[figure]
        judged = [run for run in runs if name in run.numbers and run.id in self._samples]
        asked = [run for run in judged if name not in run.invalid_figures]
        value = replace(value, samples=sum(int(self._samples[run.id].right(figure).sum()) for run in asked))
        if value.n > 1:
            return value
        # one run alone has an interval of its own samples; where none has enough of them, all are taken together
        behind = [run for run in asked if not value.n or run.numbers[name] is not None]
        ordered = latencies([self._samples[run.id] for run in behind], figure)
        if not value.n and ordered.size >= samples_needed(q):
            value = replace(value, value=float(ordered[nearest_rank(ordered.size, q)]), value_from="samples")
        ci = order_interval(ordered, q)
        return replace(value, ci=ci, ci_from="samples") if ci else value


def _largest(value: Value) -> Value:
    claims = [run for run in value.runs if run is not None]
    if not claims or len(claims) < len(value.runs):
        return replace(value, value=None, sd=None, ci=None, ci_from=None, value_from="largest")
    return replace(value, value=max(claims), sd=None, ci=None, ci_from=None, value_from="largest")


def _requests_ms(group: Sequence[Samples], figure: str) -> NDArray[np.float64]:
    """Latencies of the right answers, ms per request, sorted."""
    return np.sort(np.concatenate([np.empty(0), *(samples.requests_ms(figure) for samples in group)]))
