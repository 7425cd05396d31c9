"""Prometheus text under TensorFlow Serving's metric names, cheap enough for every request.

What each metric counts is what TensorFlow Serving 2.20 counts. Its bucket bounds are among those of this module, which
has more of them: a percentile that is read from these buckets is within about 12 %.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from threading import Lock

import numpy as np

LATENCY_BUCKETS_US = tuple(10 * 1.8 ** (i / 3) for i in range(97))
"""10 us to 25 minutes; every third bound is one of TensorFlow Serving's."""
QUEUING_BUCKETS_US = tuple(100 * 1.2**i for i in range(-12, 80))
"""11 us to 180 s; TensorFlow Serving's are those from 100 us to 1.1 s."""
SIZE_BUCKETS = tuple(float(1 << i) for i in range(15))
GRAPH_RUN_BUCKETS_US = tuple(1000.0 * 2**i for i in range(20))
"""1 ms to 9 minutes, as in TensorFlow."""
_MOST_UNKNOWN_NAMES = 100
_LONGEST_UNKNOWN_NAME = 128
"""Characters."""
_MOST_PENDING = 4096
"""Values that wait to be counted together."""

Labels = tuple[str, ...]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class Counter:
    """A whole number for each combination of labels, only ever growing."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self.name, self.help, self.labels = name, help_text, tuple(labels)
        self._values: dict[Labels, int] = {}
        self._lock = Lock()

    def add(self, labels: Labels, amount: int = 1) -> None:
        """Add to the child of these label values."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def first(self) -> int:
        """The value of the first child in the order of labels; 0 where there is none."""
        values = self._values.copy()
        return values[min(values)] if values else 0

    def lines(self) -> Iterable[str]:
        """Samples in Prometheus text."""
        for labels, value in sorted(self._values.copy().items()):
            yield f"{self.name}{_braces(self.labels, labels)} {value}"


class _Child:
    __slots__ = ("counts", "pending", "total")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.total = 0.0
        self.pending: list[float] = []

    def count_pending(self, buckets: Sequence[float]) -> None:
        if self.pending:
            places = np.searchsorted(buckets, self.pending)
            for place, number in enumerate(np.bincount(places, minlength=len(self.counts)).tolist()):
                self.counts[place] += number
            self.total += sum(self.pending)
            self.pending.clear()


class Histogram:
    """Counts in fixed buckets, for each combination of labels."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        self.name, self.help, self.labels, self.buckets = name, help_text, tuple(labels), tuple(buckets)
        self._children: dict[Labels, _Child] = {}
        self._lock = Lock()

    def observe(self, labels: Labels, value: float) -> None:
        """Count one value under these label values."""
        with self._lock:
            child = self._children.get(labels) or self._child(labels)
            child.counts[bisect_left(self.buckets, value)] += 1
            child.total += value

    def observe_all(self, labels: Labels, values: Iterable[float]) -> None:
        """Count each of these values: a tenth of the cost of one by one."""
        with self._lock:
            child = self._children.get(labels) or self._child(labels)
            child.pending.extend(values)
            if len(child.pending) >= _MOST_PENDING:
                child.count_pending(self.buckets)

    def _child(self, labels: Labels) -> _Child:
        child = self._children[labels] = _Child(len(self.buckets) + 1)
        return child

    def lines(self) -> Iterable[str]:
        """Samples in Prometheus text, buckets cumulative."""
        for labels, child in sorted(self._children.copy().items()):
            with self._lock:
                child.count_pending(self.buckets)
                counts, total = list(child.counts), child.total
            running = 0
            for bound, count in zip([*self.buckets, float("inf")], counts, strict=True):
                running += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f"{self.name}_bucket{_braces((*self.labels, 'le'), (*labels, le))} {running}"
            yield f"{self.name}_sum{_braces(self.labels, labels)} {total!r}"
            yield f"{self.name}_count{_braces(self.labels, labels)} {running}"


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}"


class Metrics:
    """Every metric of one server. Latencies are in microseconds, as in TensorFlow Serving."""

    def __init__(self) -> None:
        prefix = ":tensorflow:serving:"
        api = ("model_name", "API", "entrypoint")
        runtime = ("model_name", "API", "runtime")
        self.request_count = Counter(
            f"{prefix}request_count", "The total number of requests.", ("model_name", "status")
        )
        self.request_latency = Histogram(
            f"{prefix}request_latency", "Distribution of wall time, microseconds.", api, LATENCY_BUCKETS_US
        )
        self.runtime_latency = Histogram(
            f"{prefix}runtime_latency",
            "Wall time of a run in TensorFlow with its wait for a batch, microseconds.",
            runtime,
            LATENCY_BUCKETS_US,
        )
        self.example_counts = Histogram(f"{prefix}request_example_counts", "Rows a request.", ("model",), SIZE_BUCKETS)
        self.example_count_total = Counter(
            f"{prefix}request_example_count_total", "The total number of rows.", ("model",)
        )
        self.warmup_latency = Histogram(
            f"{prefix}model_warmup_latency",
            "Wall time of warm-up, microseconds.",
            ("model_path", "status"),
            LATENCY_BUCKETS_US,
        )
        self.warmup_records = Counter(
            f"{prefix}model_warmup_records_read", "Warm-up records read.", ("model_path", "status")
        )
        self.request_log_count = Counter(
            f"{prefix}request_log_count",
            "Requests logged: none, as requests are not logged here.",
            ("model_name", "status_code"),
        )
        self.load_latency = Counter(
            ":tensorflow:cc:saved_model:load_latency", "Wall time of loads, microseconds.", ("model_path",)
        )
        self.load_attempts = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count", "Loads.", ("model_path", "status")
        )
        core = ":tensorflow:core:graph_run"
        self.graph_runs = Counter(f"{core}s", "Graph executions.", ())
        self.graph_run_time = Counter(f"{core}_time_usecs", "Wall time of graph executions, microseconds.", ())
        self.graph_run_times = Histogram(
            f"{core}_time_usecs_histogram",
            "Distribution of the wall time of graph executions, microseconds.",
            (),
            GRAPH_RUN_BUCKETS_US,
        )
        batching = f"{prefix}batching_session:"
        self.queuing_latency = Histogram(
            f"{batching}queuing_latency",
            "Wall time of a request from its arrival in the batching queue to the start of its batch, microseconds.",
            ("thread_pool_name",),
            QUEUING_BUCKETS_US,
        )
        self.wrapped_run_count = Counter(f"{batching}wrapped_run_count", "Batches run.", ())
        self.unbatched_requests = Counter(
            ":savedmodel_server:unbatched_request_count",
            "Requests that ran past the batching queue though batching is on (not a metric of TensorFlow Serving).",
            ("model_name", "version", "signature_name", "reason"),
        )
        self._all: list[Counter | Histogram] = [m for m in vars(self).values() if isinstance(m, Counter | Histogram)]
        self._counters = {m.name.replace(":", "/"): m for m in self._all if isinstance(m, Counter)}
        self._unknown_names: set[str] = set()

    def count_failure(self, name: str, status: str, *, is_served: bool) -> None:
        """Count a request that failed under the model that it names, served or not, as TensorFlow Serving does.

        Names of models that are not served have no bound: after a hundred of them, or where they are long, the label
        is ''.
        """
        if not is_served and name not in self._unknown_names:
            if len(self._unknown_names) < _MOST_UNKNOWN_NAMES and len(name) <= _LONGEST_UNKNOWN_NAME:
                self._unknown_names.add(name)
            else:
                name = ""
        self.request_count.add((name, status))

    def count_graph_run(self, micros: float) -> None:
        """Count one run of a graph that went well: of one request, or of one batch without the wait for it."""
        self.graph_runs.add(())
        self.graph_run_time.add((), round(micros))
        self.graph_run_times.observe((), micros)

    def first_value(self, name: str) -> int:
        """Of the counter that TensorFlow names so (/tensorflow/serving/request_count): the value of its first child.

        0 for a histogram, which has no whole number, and for a name that there is not.
        """
        counter = self._counters.get(name)
        return counter.first() if counter else 0

    def page(self) -> bytes:
        """The page that Prometheus scrapes."""
        lines = []
        for metric in self._all:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            lines += metric.lines()
        return ("\n".join(lines) + "\n").encode()
