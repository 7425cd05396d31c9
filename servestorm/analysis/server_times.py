"""What the servers say of their own time, put on one model: queue, pre-processing, inference, post-processing.

All figures are means of one request in milliseconds: both servers count sums and requests, so that no percentile can be
had from them. Where a server counts a batch, a request has waited for all of it, and so the whole of it is its time.

| | TensorFlow Serving | savedmodel | TorchServe |
|---|---|---|---|
| total | request_latency | request_latency | ts_inference_latency (REST only) |
| queue | queuing_latency, with batching | queuing_latency, with batching | ts_queue_latency; over gRPC QueueTime |
| pre-processing | in the graph: inference | in the graph: inference | our handler's PreprocessTime |
| inference | runtime_latency less queue | runtime_latency | our handler's InferenceTime |
| post-processing | not exposed | not exposed | our handler's PostprocessTime |

Decoding JSON or protobuf, and whatever else no metric tells, is the rest of the total.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from servestorm.rundir.metrics_table import Readings, read_readings

_TF = ":tensorflow:serving:"
_REQUEST, _RUNTIME = f"{_TF}request_latency", f"{_TF}runtime_latency"
_QUEUING = f"{_TF}batching_session:queuing_latency"
_WANTED = (
    *(f"{name}_{part}" for name in (_REQUEST, _RUNTIME, _QUEUING) for part in ("sum", "count")),
    *("ts_inference_requests", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"),
    *("PreprocessTime", "InferenceTime", "PostprocessTime", "HandledRequests", "QueueTime", "PredictionTime"),
)

Labels = Mapping[str, str]


@dataclass(frozen=True)
class ServerTimes:
    """Means of one request in milliseconds; None is what the server does not expose."""

    requests: float | None = None
    """That the means are over."""
    total_ms: float | None = None
    """From the request's arrival in the server to its answer."""
    queue_ms: float | None = None
    preprocess_ms: float | None = None
    inference_ms: float | None = None
    postprocess_ms: float | None = None
    notes: tuple[str, ...] = ()
    """What a reader must know of these figures, in sentences."""


def server_times(
    engine: str, metrics: Path, *, since_unix_ms: int | None = None, until_unix_ms: int | None = None
) -> ServerTimes:
    """The times in a cell's metrics.parquet; those before and after the load are left out where bounds are given.

    Raises StudyError naming the file where it is not one of metrics.
    """
    series = _MetricSeries(_read(metrics), since_unix_ms, until_unix_ms)
    return _torchserve(series) if engine == "torchserve" else _tensorflow(engine, series)


def requests_by_replica(engine: str, metrics: Path) -> dict[int, float]:
    """Requests that each replica has counted since its metrics were first read; those that counted none are left out.

    Raises StudyError naming the file where it is not one of metrics.
    """
    series = _MetricSeries(_read(metrics), None, None)
    if engine != "torchserve":
        return series.increases(f"{_REQUEST}_count", _of_predict)
    # the handler's own counter knows both protocols; a handler of somebody else's has none
    return series.increases("HandledRequests") or series.increases("ts_inference_requests")


def _read(path: Path) -> Readings:
    return read_readings(path, [*_WANTED, *(f"{name}_total" for name in _WANTED)])


class _MetricSeries:
    """Increases of counters and means of gauges, over all replicas."""

    def __init__(self, readings: Readings, since_ms: int | None, until_ms: int | None) -> None:
        self._points: dict[tuple[str, int, str], list[tuple[int, float]]] = defaultdict(list)
        # when a replica was first read separates a series that began late from one that was not read before
        self._first_ms = readings.first_unix_ms
        self._since_ms = since_ms
        for point in readings.points:
            if until_ms is None or point.time_unix_ms <= until_ms:
                # prometheus-client's parser names every counter _total, a Prometheus keeps the server's own name
                key = (point.metric.removesuffix("_total"), point.replica, point.labels)
                self._points[key].append((point.time_unix_ms, point.value))

    def increase(self, metric: str, keep: Callable[[Labels], bool] = lambda _: True) -> float | None:
        """Of a counter, over all its series whose labels are kept; None where there is none, or it stood still."""
        return sum(self.increases(metric, keep).values()) or None

    def increases(self, metric: str, keep: Callable[[Labels], bool] = lambda _: True) -> dict[int, float]:
        """Of a counter, by replica, over all its series whose labels are kept; without those where it stood still."""
        grown_by: dict[int, float] = defaultdict(float)
        for (name, replica, labels), points in self._points.items():
            if name == metric and keep(json.loads(labels)):
                grown_by[replica] += self._grown(replica, sorted(points))
        return {replica: grown for replica, grown in grown_by.items() if grown}

    def _grown(self, replica: int, points: list[tuple[int, float]]) -> float:
        since_ms = self._begin_ms(replica)
        before = [value for time_ms, value in points if time_ms <= since_ms]
        values = [before[-1] if before else 0.0, *(value for time_ms, value in points if time_ms > since_ms)]
        # a counter that falls began anew with its server
        return sum(b - a if b >= a else b for a, b in itertools.pairwise(values))

    def mean(self, metric: str) -> float | None:
        """Of a gauge, over its readings after the first, which tells of requests before."""
        values = [
            value
            for (name, replica, _), points in self._points.items()
            if name == metric
            for time_ms, value in points
            if time_ms > self._begin_ms(replica)
        ]
        return sum(values) / len(values) if values else None

    def _begin_ms(self, replica: int) -> int:
        return self._first_ms[replica] if self._since_ms is None else self._since_ms


def _of_predict(labels: Labels) -> bool:
    return labels.get("API", "").lower() == "predict"


def _anything(_: Labels) -> bool:
    return True


def _tensorflow(engine: str, series: _MetricSeries) -> ServerTimes:
    def mean_ms(name: str, keep: Callable[[Labels], bool]) -> tuple[float | None, float | None]:
        return _over(series.increase(f"{name}_sum", keep), count := series.increase(f"{name}_count", keep), 1e3), count

    total_ms, requests = mean_ms(_REQUEST, _of_predict)
    inference_ms, _ = mean_ms(_RUNTIME, _of_predict)
    queue_ms, _ = mean_ms(_QUEUING, _anything)
    notes = ["Pre-processing is part of the graph, and so of inference; post-processing is not exposed."]
    if requests is None:
        return ServerTimes(notes=("The server's own metrics tell of no request.",))
    if queue_ms is None:
        notes.append("Without batching the server tells no queue: waiting for a thread is in the rest of the server.")
    elif engine == "savedmodel":
        notes.append("The queue is a mean over batches, of the request that waited longest in each.")
    elif inference_ms is not None:
        inference_ms -= queue_ms
        notes.append("TensorFlow Serving counts the batching queue into its runtime: it is subtracted here.")
    return ServerTimes(requests, total_ms, queue_ms, None, inference_ms, None, tuple(notes))


def _torchserve(series: _MetricSeries) -> ServerTimes:
    requests = series.increase("ts_inference_requests")
    handled = series.increase("HandledRequests")
    notes: list[str] = []
    if requests is None and handled is None:
        return ServerTimes(notes=("The server's own metrics tell of no request.",))
    total_ms = _over(series.increase("ts_inference_latency_microseconds"), requests, 1e3)
    queue_ms = _over(series.increase("ts_queue_latency_microseconds"), requests, 1e3)
    if total_ms is None:  # over gRPC, TorchServe counts neither
        queue_ms = series.mean("QueueTime")
        notes.append("Over gRPC TorchServe tells no total; its queue is a mean of whole milliseconds, one a reading.")
    if handled is None:
        inference_ms = series.mean("PredictionTime")
        if inference_ms is not None:
            notes.append(
                "This handler tells only its whole time, once a reading: inference is pre- and post-processing too."
            )
        return ServerTimes(requests, total_ms, queue_ms, None, inference_ms, None, tuple(notes))
    names = ("PreprocessTime", "InferenceTime", "PostprocessTime")
    preprocess_ms, inference_ms, postprocess_ms = (_over(series.increase(name), handled, 1) for name in names)
    return ServerTimes(
        requests or handled, total_ms, queue_ms, preprocess_ms, inference_ms, postprocess_ms, tuple(notes)
    )


def _over(amount: float | None, count: float | None, divisor: float) -> float | None:
    return None if amount is None or not count else amount / count / divisor
