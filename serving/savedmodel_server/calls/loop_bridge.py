"""Between an event loop and the dispatcher's threads: what one turn of the loop reads goes over together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock

from serving.savedmodel_server.calls.call import Call, Caller
from serving.savedmodel_server.calls.dispatch import Dispatcher
from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import RequestError
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.repository import Lease
from serving.savedmodel_server.versions.signatures import Signature

Done = Callable[[Sequence[Array] | None, RequestError | None], None]


class LoopBridge:
    """Belongs to one event loop; `start` is for its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dispatcher: Dispatcher, metrics: Metrics) -> None:
        self.loop = loop
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._starting: list[Call] = []
        self._under_way: dict[Call, tuple[Lease, Done]] = {}
        self._finished: deque[list[Call]] = deque()
        self._lock = Lock()
        self._waking = False
        self._done = self._from_thread
        """Bound once, as the dispatcher notifies all calls with the same `done` together."""

    def start(self, lease: Lease, signature: Signature, arrays: tuple[Array, ...], done: Done, caller: Caller) -> None:
        """Run the signature: `done` gets all its outputs in order, or the error, on the loop's thread.

        The lease is released before. What a caller waits for no longer is not run: the error is CANCELLED.
        """
        call = Call(lease.servable, signature, arrays, self._done, caller)
        self._under_way[call] = (lease, done)
        if not self._starting:
            self.loop.call_soon(self._submit)
        self._starting.append(call)

    def _submit(self) -> None:
        calls, self._starting = self._starting, []
        self._dispatcher.submit(calls)

    def _from_thread(self, calls: list[Call]) -> None:
        self._finished.append(calls)
        with self._lock:
            wake, self._waking = not self._waking, True
        if wake:
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits
                return

    def _deliver(self) -> None:
        with self._lock:
            self._waking = False
        while self._finished:
            for call in self._finished.popleft():
                self._finish(call)

    def _finish(self, call: Call) -> None:
        lease, done = self._under_way.pop(call)
        lease.release()
        if call.error is None:
            self._metrics.runtime_latency.observe((call.servable.name, "Predict", "TF1"), call.micros)
        done(call.outputs, call.error)
