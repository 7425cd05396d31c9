"""Hands calls from the event loop to threads that enter TensorFlow, and their outputs back.

Calls of one signature that the loop reads in one turn enter the batching kernel together, as one task of several rows:
the kernel still decides what runs with what, yet one thread is woken for them all.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Lock, Thread

import numpy as np

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.repository import Lease
from serving.savedmodel_server.signatures import Array, Signature

MOST_ROWS = 1 << 16
Done = Callable[[Sequence[Array] | None, RequestError | None], None]


def row_count(arrays: Sequence[Array]) -> int:
    """Examples in a request: the length of the first input, 1 for a scalar."""
    return len(arrays[0]) if arrays and arrays[0].ndim else 1


class _Call:
    __slots__ = ("arrays", "done", "error", "lease", "outputs", "rows", "signature")

    def __init__(self, lease: Lease, signature: Signature, arrays: tuple[Array, ...], done: Done) -> None:
        self.lease = lease
        self.signature = signature
        self.arrays = arrays
        self.done = done
        self.rows = row_count(arrays)
        self.outputs: Sequence[Array] | None = None
        self.error: RequestError | None = None


class Dispatcher:
    """Runs calls on `threads` threads for one event loop; `start` belongs to the loop's thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, threads: int, metrics: Metrics, most_rows: int = MOST_ROWS
    ) -> None:
        """At most `most_rows` rows of one servable wait or run; a call beyond them ends at once as UNAVAILABLE."""
        self.loop = loop
        self._most_rows = most_rows
        self._metrics = metrics
        self._queue: SimpleQueue[list[_Call] | None] = SimpleQueue()
        self._groups: dict[object, list[_Call]] = {}
        self._finished: deque[list[_Call]] = deque()
        self._lock = Lock()
        self._waking = False
        self._threads = [Thread(target=self._work, name=f"rest-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def start(self, lease: Lease, signature: Signature, arrays: tuple[Array, ...], done: Done) -> None:
        """Run the signature: `done` gets all its outputs in order, or the error, on the loop's thread.

        The lease is released when the run is over.
        """
        call = _Call(lease, signature, arrays, done)
        servable = lease.servable
        servable.waiting_rows += call.rows
        if servable.waiting_rows > self._most_rows and servable.waiting_rows > call.rows:
            self._refuse(call, _full(call.rows, self._most_rows))
            return
        if not call.rows or not servable.batches(signature) or any(len(a) != call.rows for a in arrays):
            self._queue.put([call])
            return
        key = (servable, signature.name, *[array.shape[1:] for array in arrays])
        group = self._groups.get(key)
        if group is not None:
            group.append(call)
            return
        if not self._groups:
            self.loop.call_soon(self._flush)
        self._groups[key] = [call]

    def _refuse(self, call: _Call, error: RequestError) -> None:
        call.lease.release()
        call.lease.servable.waiting_rows -= call.rows
        self.loop.call_soon(call.done, None, error)

    def _flush(self) -> None:
        groups, self._groups = self._groups, {}
        for group in groups.values():
            for task in _tasks(group, group[0].lease.servable.max_batch_rows):
                self._queue.put(task)

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            self._run(task)
            for call in task:
                call.lease.release()
            self._finished.append(task)
            with self._lock:
                wake, self._waking = not self._waking, True
            if wake:
                try:
                    self.loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits
                    return

    def _run(self, task: list[_Call]) -> None:
        begin = time.perf_counter_ns()
        if len(task) == 1:
            _run_one(task[0])
        else:
            _run_together(task)
        micros = (time.perf_counter_ns() - begin) / 1000
        for call in task:
            if call.error is None:
                self._metrics.runtime_latency.observe((call.lease.servable.name, "Predict", "TF1"), micros)

    def _deliver(self) -> None:
        with self._lock:
            self._waking = False
        while self._finished:
            for call in self._finished.popleft():
                call.lease.servable.waiting_rows -= call.rows
                call.done(call.outputs, call.error)

    def close(self) -> None:
        """End the threads once they have done what they were given."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=5)


def _full(rows: int, most_rows: int) -> RequestError:
    return RequestError(
        Code.UNAVAILABLE,
        "The batch scheduling queue to which this task was submitted is full; "
        f"task size is {rows}, and at most {most_rows} rows may wait",
    )


def _tasks(group: list[_Call], most_rows: int) -> list[list[_Call]]:
    """The calls in order, dealt so that a task of several calls has at most `most_rows` rows."""
    tasks: list[list[_Call]] = []
    rows = 0
    for call in group:
        if tasks and rows + call.rows <= most_rows:
            tasks[-1].append(call)
            rows += call.rows
        else:
            tasks.append([call])
            rows = call.rows
    return tasks


def _run_one(call: _Call) -> None:
    try:
        call.outputs = call.lease.servable.run(call.signature, call.arrays, tuple(call.signature.outputs))
    except RequestError as error:
        call.error = error


def _run_together(task: list[_Call]) -> None:
    """One run for all; where that fails, each by itself."""
    servable, signature = task[0].lease.servable, task[0].signature
    arrays = [np.concatenate(columns) for columns in zip(*(call.arrays for call in task), strict=True)]
    try:
        outputs = servable.run(signature, arrays, tuple(signature.outputs))
    except RequestError as error:
        for call in task:
            if error.code is Code.UNAVAILABLE:
                call.error = error
            else:
                _run_one(call)
        return
    begin = 0
    for call in task:
        end = begin + call.rows
        call.outputs = [output[begin:end] for output in outputs]
        begin = end
