"""Counts batches and waits for them as TensorFlow Serving's batching session does."""

from __future__ import annotations

from collections.abc import Sequence

from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.metrics import Metrics

_SCALAR = "an input of the request is a scalar"
_FAILED = "the batch that it was in failed"


class BatchRecord:
    """Safe from any thread."""

    def __init__(self, metrics: Metrics, thread_pool_name: str) -> None:
        self._metrics = metrics
        self._labels = (thread_pool_name,)

    def add(self, calls: Sequence[Call], began_ns: int) -> None:
        """One batch that was run from `began_ns` of the performance counter on: each request's wait for it.

        A request that was split has waited until the first of its batches: TensorFlow Serving counts each part, which
        tells no wait of a request.
        """
        waits_us = [(began_ns - call.since_ns) / 1000 for call in calls if not call.offset]
        self._metrics.queuing_latency.observe_all(self._labels, waits_us)
        self._metrics.wrapped_run_count.add(())

    def count_unbatched(self, call: Call) -> None:
        """Count a call that runs by itself, where batching is on."""
        if call.servable.options.batching is None:
            return
        reason = call.servable.unbatched.get(call.signature.name)
        if reason is None and any(not array.ndim for array in call.arrays):
            reason = _SCALAR
        if reason is not None:  # else it has no rows, or is refused
            self._count(call, reason)

    def count_reruns(self, calls: Sequence[Call]) -> None:
        """Of a batch that failed, those requests count that ran well by themselves."""
        for call in calls:
            if call.outputs is not None:
                self._count(call, call.servable.unbatched.get(call.signature.name, _FAILED))

    def _count(self, call: Call, reason: str) -> None:
        servable = call.servable
        self._metrics.unbatched_requests.add((servable.name, str(servable.version), call.signature.name, reason))
