"""Counts batches and waits for them as TensorFlow Serving's batching session does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock

from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.metrics import Metrics

_BEGINNINGS_KEPT = 256
_SCALAR = "an input of the request is a scalar"
_FAILED = "the batch that it was in failed"


class BatchRecord:
    """Safe from any thread."""

    def __init__(self, metrics: Metrics, thread_pool_name: str) -> None:
        self._metrics = metrics
        self._labels = (thread_pool_name,)
        self._beginnings_s: dict[float, None] = {}
        """Of the last batches: tasks with the same one were one batch."""
        self._lock = Lock()

    def add(self, calls: Sequence[Call], began_s: Sequence[float], entered_ns: int) -> None:
        """One task that has just come back: each request's wait for its batch, and the batches that it was in.

        began_s: when the batch of each row began, in seconds of Unix time (the kernel's clock); empty where the batch
        failed. entered_ns: of the performance counter, when the task entered the kernel. A request that was split has
        waited until the first of its batches: TensorFlow Serving counts each part, which tells no wait of a request.
        """
        if began_s:
            begins_ns = _begins_ns(calls, began_s)
            waits_us = _waits_us(calls, began_s, begins_ns)
            new = self._new_batches(begins_ns)
            batches = len(new)
            self._count_runs([begins_ns[beginning_s] for beginning_s in new])
        else:  # how long a batch that failed had waited in the kernel is not known
            waits_us = [(entered_ns - call.since_ns) / 1000 for call in calls]
            batches = 1
            self._count_reruns(calls)
        self._metrics.queuing_latency.observe_all(self._labels, waits_us)
        if batches:
            self._metrics.wrapped_run_count.add((), batches)

    def _count_runs(self, begins_ns: Iterable[float]) -> None:
        now_ns = time.perf_counter_ns()
        for begin_ns in begins_ns:
            self._metrics.count_graph_run((now_ns - begin_ns) / 1000)

    def _new_batches(self, beginnings_s: Iterable[float]) -> list[float]:
        """Those of these batches that no other task was in before."""
        seen = self._beginnings_s
        new: list[float] = []
        with self._lock:
            for beginning_s in beginnings_s:
                if beginning_s not in seen:
                    seen[beginning_s] = None
                    new.append(beginning_s)
            while len(seen) > _BEGINNINGS_KEPT:
                del seen[next(iter(seen))]
        return new

    def count_unbatched(self, call: Call) -> None:
        """Count a call that runs past the kernel, where batching is on."""
        if call.servable.options.batching is None:
            return
        reason = call.servable.unbatched.get(call.signature.name)
        if reason is None and any(not array.ndim for array in call.arrays):
            reason = _SCALAR
        if reason is not None:  # else it has no rows, or is refused
            self._count(call, reason)

    def _count_reruns(self, calls: Sequence[Call]) -> None:
        """Of a batch that failed, those requests count that ran well by themselves."""
        for call in calls:
            if call.outputs is not None:
                self._count(call, call.servable.unbatched.get(call.signature.name, _FAILED))

    def _count(self, call: Call, reason: str) -> None:
        servable = call.servable
        self._metrics.unbatched_requests.add((servable.name, str(servable.version), call.signature.name, reason))


def _begins_ns(calls: Sequence[Call], began_s: Sequence[float]) -> dict[float, float]:
    """Of the batches of a task's rows, in order: when each began, by the performance counter.

    After the arrival of the newest call and not in the future, should the wall clock be set meanwhile.
    """
    now_ns, newest_ns = time.perf_counter_ns(), calls[-1].since_ns
    offset_ns = now_ns - time.time_ns()
    return {began: min(max(began * 1e9 + offset_ns, newest_ns), now_ns) for began in dict.fromkeys(began_s)}


def _waits_us(calls: Sequence[Call], began_s: Sequence[float], begins_ns: Mapping[float, float]) -> list[float]:
    if len(begins_ns) == 1:
        (begin_ns,) = begins_ns.values()
        return [(begin_ns - call.since_ns) / 1000 for call in calls]
    waits_us: list[float] = []
    row = 0
    for call in calls:
        waits_us.append((begins_ns[began_s[row]] - call.since_ns) / 1000)
        row += call.rows
    return waits_us
