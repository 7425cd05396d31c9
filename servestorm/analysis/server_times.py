"""What the servers say of their own time, put on one model: queue, pre-processing, inference, post-processing.

All figures are means of one request in milliseconds: both servers count sums and requests, so that no percentile can be
had from them. Where a server counts a batch, a request has waited for all of it, and so the whole of it is its time.

| | TensorFlow Serving and savedmodel | TorchServe |
|---|---|---|
| total | request_latency | ts_inference_latency (REST only) |
| queue | queuing_latency, with batching: the wait for the batch | ts_queue_latency; over gRPC QueueTime |
| pre-processing | in the graph: inference | our handler's PreprocessTime |
| inference | runtime_latency, which holds the queue too, less queue | our handler's InferenceTime |
| post-processing | not exposed | our handler's PostprocessTime |

Decoding JSON or protobuf, and whatever else no metric tells, is the rest of the total.

Each sum is divided by the requests that are in it. TensorFlow Serving adds to request_latency what it answered with OK;
questions for the status or the metadata of a model are in it too, with an empty label API, and are left out here.
TorchServe counts each request in ts_inference_requests, and adds no time of one that it refused or whose handler raised
(answers with status 5xx). A request to which the handler itself gave status 4xx is in the sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from servestorm.analysis.metric_series import Growth, Keep, Labels, MetricSeries, anything
from servestorm.rundir.metrics_table import Readings, read_readings

_TF = ":tensorflow:serving:"
_REQUEST, _RUNTIME = f"{_TF}request_latency", f"{_TF}runtime_latency"
_QUEUING = f"{_TF}batching_session:queuing_latency"
_WANTED = (
    *(f"{name}_{part}" for name in (_REQUEST, _RUNTIME, _QUEUING) for part in ("sum", "count")),
    *("ts_inference_requests", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds", "Requests5XX"),
    *("PreprocessTime", "InferenceTime", "PostprocessTime", "HandledRequests", "QueueTime", "PredictionTime"),
)
_US_PER_MS = 1e3
_COARSE, _TOO_COARSE = 0.05, 0.5
"""Shares of a mean by which rounding may move it: from the first on it is noted, from the second on left out."""


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
    series = MetricSeries(_read(metrics), since_unix_ms, until_unix_ms)
    return _torchserve(series) if engine == "torchserve" else _tensorflow(engine, series)


def requests_by_replica(engine: str, metrics: Path) -> dict[int, float]:
    """Requests that each replica has counted since its metrics were first read; those that counted none are left out.

    Raises StudyError naming the file where it is not one of metrics.
    """
    series = MetricSeries(_read(metrics), None, None)
    if engine != "torchserve":
        return series.increases(f"{_REQUEST}_count", _of_predict)
    # the handler's own counter knows both protocols; a handler of somebody else's has none
    return series.increases("HandledRequests") or series.increases("ts_inference_requests")


def _read(path: Path) -> Readings:
    return read_readings(path, [*_WANTED, *(f"{name}_total" for name in _WANTED)])


def _of_predict(labels: Labels) -> bool:
    return labels.get("API", "").lower() == "predict"


def _of_an_earlier_savedmodel(labels: Labels) -> bool:
    """Its label of a question for the status or the metadata of a model, which is empty on TensorFlow Serving."""
    return labels.get("API") in ("Status", "Metadata")


def _tensorflow(engine: str, series: MetricSeries) -> ServerTimes:
    total, requests = _histogram(series, _REQUEST, _of_predict)
    if requests is None:
        return ServerTimes(notes=("The server's own metrics tell of no request.",))
    runtime, ran = _histogram(series, _RUNTIME, _of_predict)
    queue, _ = _histogram(series, _QUEUING)
    notes = ["Pre-processing is part of the graph, and so of inference; post-processing is not exposed."]
    if queue is None:
        notes.append("Without batching the server tells no queue: waiting for a thread is in the rest of the server.")
    elif engine == "savedmodel" and series.has(f"{_REQUEST}_count", _of_an_earlier_savedmodel):
        notes.append(
            "This savedmodel-server is of an earlier servestorm, which counted the wait for a batch as inference: "
            "queue and inference are left out; run the study again."
        )
        runtime = queue = None
    elif runtime is not None:
        notes.append("The server counts the wait for a batch into its runtime: it is subtracted here.")
        runtime -= queue
    means = [_Mean(total, requests), _Mean(queue, ran or requests), _Mean(runtime, ran or requests)]
    total_ms, queue_ms, inference_ms = (mean.ms for mean in means)
    return ServerTimes(requests, total_ms, queue_ms, None, inference_ms, None, (*notes, *_coarse(means)))


def _histogram(series: MetricSeries, name: str, keep: Keep = anything) -> tuple[Growth | None, float | None]:
    """Sum and count of what a histogram observed; None where that is nothing."""
    count = series.increase(f"{name}_count", keep)
    return (series.growth(f"{name}_sum", keep) if count else None), count


@dataclass(frozen=True)
class _Mean:
    """A sum of microseconds over the requests that are in it."""

    sum_us: Growth | None
    requests: float

    @property
    def error_share(self) -> float:
        """By how much of itself rounding may have moved it; 0 where there is none."""
        if self.sum_us is None or not self.sum_us.coarseness:
            return 0.0
        return self.sum_us.coarseness / abs(self.sum_us.amount) if self.sum_us.amount else math.inf

    @property
    def ms(self) -> float | None:
        """None where there is none, or its digits do not suffice."""
        if self.sum_us is None or self.error_share > _TOO_COARSE:
            return None
        return self.sum_us.amount / self.requests / _US_PER_MS


def _coarse(means: list[_Mean]) -> list[str]:
    """What a reader must know where sums have grown so large that six digits do not show a load exactly."""
    worst = max(mean.error_share for mean in means)
    if worst <= _COARSE:
        return []
    grown = "The server writes sums of times with six digits, and has served so long that a mean of this load"
    if worst > _TOO_COARSE:
        return [f"{grown} is lost in them: what is left out is in another part; start the server anew before a study."]
    return [f"{grown} may be off by more than {100 * _COARSE:.0f} %: start the server anew before a study."]


def _torchserve(series: MetricSeries) -> ServerTimes:
    requests = series.increase("ts_inference_requests")
    handled = series.increase("HandledRequests")
    notes: list[str] = []
    if requests is None and handled is None:
        return ServerTimes(notes=("The server's own metrics tell of no request.",))
    latency_us = series.increase("ts_inference_latency_microseconds")
    if latency_us is None:  # over gRPC, TorchServe counts neither times nor statuses
        total_ms, queue_ms = None, series.mean("QueueTime")
        notes.append("Over gRPC TorchServe tells no total; its queue is a mean of whole milliseconds, one a reading.")
    else:
        if requests is not None and (failed := series.increase("Requests5XX")):
            requests = max(requests - failed, 0.0)
            notes.append(
                "TorchServe adds no time of a request that it refused or whose handler raised: these means are over "
                "the others."
            )
        total_ms = _over(latency_us, requests, _US_PER_MS)
        queue_ms = _over(series.increase("ts_queue_latency_microseconds"), requests, _US_PER_MS)
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
