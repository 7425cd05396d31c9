"""The generator's own Prometheus metrics: what it offered, sent and got back, and how late it was itself."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from loadtests.errors import LoadEnvironmentError
from loadtests.generator.jobs import OUTCOMES
from loadtests.generator.load import ROW

_COLUMN: Final = {name: index for index, name in enumerate(ROW)}
# A ratio of 1.03 between bounds keeps a percentile interpolated within its bucket inside 2 % of the exact one.
BOUNDS_S: Final = np.geomspace(1e-5, 120.0, 552)


class GeneratorMetrics:
    """A Prometheus collector fed with measured samples in batches; histograms count from the scheduled time.

    `offered` and `in_flight` give how many requests were due after the warm-up, and how many are under way.
    """

    def __init__(self, offered: Callable[[], int], in_flight: Callable[[], int]) -> None:
        self._offered, self._in_flight = offered, in_flight
        self._outcomes = np.zeros(len(OUTCOMES), np.int64)
        self._sent = 0
        self._latency, self._lag = _Counts(), _Counts()

    def feed(self, rows: NDArray[np.int64]) -> None:
        """Take samples, (n, len(ROW)) int64."""
        outcome, scheduled = rows[:, _COLUMN["outcome"]], rows[:, _COLUMN["scheduled_ns"]]
        self._outcomes += np.bincount(outcome, minlength=len(OUTCOMES))
        sent = rows[rows[:, _COLUMN["sent_ns"]] >= 0]
        self._sent += len(sent)
        self._lag.add((sent[:, _COLUMN["sent_ns"]] - sent[:, _COLUMN["scheduled_ns"]]) / 1e9)
        done = rows[:, _COLUMN["done_ns"]] >= 0
        self._latency.add((rows[done, _COLUMN["done_ns"]] - scheduled[done]) / 1e9)

    def collect(self) -> Iterator[Any]:
        """The metric families, as prometheus_client asks for them."""
        yield CounterMetricFamily(
            "servestorm_offered", "Arrivals that were due, warm-up left out", value=self._offered()
        )
        yield CounterMetricFamily("servestorm_sent", "Requests sent, warm-up left out", value=self._sent)
        yield GaugeMetricFamily("servestorm_in_flight", "Requests under way, warm-up included", value=self._in_flight())
        done = CounterMetricFamily("servestorm_requests", "Requests that ended, warm-up left out", labels=["outcome"])
        for name, count in zip(OUTCOMES, self._outcomes.tolist(), strict=True):
            done.add_metric([name], count)
        yield done
        yield self._latency.family(
            "servestorm_latency_seconds", "From the scheduled time to the last byte, warm-up left out"
        )
        yield self._lag.family("servestorm_lag_seconds", "From the scheduled time to the send, warm-up left out")
        use = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "servestorm_cpu_seconds", "CPU of the generator's process", value=use.ru_utime + use.ru_stime
        )


class _Counts:
    def __init__(self) -> None:
        self._counts = np.zeros(len(BOUNDS_S) + 1, np.int64)
        self._sum = 0.0

    def add(self, seconds: NDArray[np.float64]) -> None:
        # side="left": a value that equals a bound belongs to it, as `le` says.
        self._counts += np.bincount(np.searchsorted(BOUNDS_S, seconds, side="left"), minlength=len(self._counts))
        self._sum += float(seconds.sum())

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        totals = np.cumsum(self._counts).tolist()
        bounds = [*(f"{bound:.6g}" for bound in BOUNDS_S), "+Inf"]
        return HistogramMetricFamily(
            name, documentation, buckets=list(zip(bounds, totals, strict=True)), sum_value=self._sum
        )


def expose(metrics: GeneratorMetrics, host: str, port: int) -> Callable[[], None]:
    """Serve the metrics on `host`:`port`; the result ends that. Raises LoadEnvironmentError where it cannot."""
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise LoadEnvironmentError(f"--metrics-port {port} cannot be bound on {host}: {error.strerror}.") from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join(2)

    return close
