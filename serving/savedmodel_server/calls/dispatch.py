"""Takes calls from the event loop and from gRPC's threads into TensorFlow, as few and as large as they come.

The batching kernel decides what runs together. But a call into TensorFlow costs as much as a row of a small network,
so calls that wait anyway, because every batch thread is busy, wait here, and enter the kernel as one task of many rows
when a batch is done. While the kernel itself waits (`batch_timeout_micros`), calls enter at once. A call whose caller
has gone meanwhile is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from weakref import WeakKeyDictionary

from serving.savedmodel_server.calls.batch_record import BatchRecord
from serving.savedmodel_server.calls.call import ANYBODY, Call, Caller
from serving.savedmodel_server.calls.runs import drop, run_alone, run_batched
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.batching import BatchingParameters
from serving.savedmodel_server.versions.servable import Servable
from serving.savedmodel_server.versions.signatures import Array, Signature

MOST_ROWS = 1 << 16
"""Rows that may wait without batching, whose parameters would else set the number."""


@dataclass(eq=False)
class _Lane:
    """Calls whose rows may share a batch: of one signature of one servable, and of one shape."""

    waiting: list[Call] = field(default_factory=list)
    running: int = 0
    opened_ns: int = 0


class Dispatcher:
    """Runs calls on threads of its own; safe from any thread."""

    def __init__(self, threads: int, batching: BatchingParameters | None, metrics: Metrics) -> None:
        self._batching = batching or BatchingParameters()
        self._ran = metrics.count_graph_run
        self._record = BatchRecord(metrics, self._batching.thread_pool_name)
        self._most_rows = batching.most_rows if batching else MOST_ROWS
        self._queue: SimpleQueue[tuple[_Lane | None, list[Call]] | None] = SimpleQueue()
        self._lanes: WeakKeyDictionary[Servable, dict[object, _Lane]] = WeakKeyDictionary()
        """Those of a version that is unloaded end with it: its graph may hold all of its weights."""
        self._lock = Lock()
        self._threads = [Thread(target=self._work, name=f"run-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def run(
        self, servable: Servable, signature: Signature, arrays: tuple[Array, ...], caller: Caller = ANYBODY
    ) -> Sequence[Array]:
        """All outputs, in order: run with others' rows where batching is on, else here. Raises RequestError."""
        over = Lock()
        over.acquire()
        call = Call(servable, signature, arrays, lambda calls: over.release(), caller)
        if _batchable(call):
            self.submit([call])
            over.acquire()
        else:
            self._record.count_unbatched(call)
            run_alone(call, self._ran)
        if call.outputs is None:
            raise call.error or RequestError(Code.INTERNAL, "A run ended without outputs.")
        return call.outputs

    def submit(self, calls: Iterable[Call]) -> None:
        """Run these; calls of one kind that come together run together."""
        ready: list[tuple[_Lane | None, list[Call]]] = []
        with self._lock:
            touched: dict[_Lane, None] = {}
            for call in calls:
                call.servable.waiting_rows += call.rows
                if call.servable.waiting_rows > max(self._most_rows, call.rows):
                    call.error = _full(call.rows, self._most_rows)
                    ready.append((None, [call]))
                elif _batchable(call):
                    lane = self._lane(call)
                    lane.waiting.append(call)
                    touched[lane] = None
                else:
                    self._record.count_unbatched(call)
                    ready.append((None, [call]))
            for lane in touched:
                ready += self._take(lane)
        for item in ready:
            self._queue.put(item)

    def _lane(self, call: Call) -> _Lane:
        lanes = self._lanes.get(call.servable)
        if lanes is None:
            lanes = self._lanes[call.servable] = {}
        key = (call.signature.name, *[array.shape[1:] for array in call.arrays])
        lane = lanes.get(key)
        if lane is None:
            if len(lanes) > _MOST_LANES:
                for unused in [key for key, lane in lanes.items() if not (lane.waiting or lane.running)]:
                    del lanes[unused]
            lane = lanes[key] = _Lane()
        return lane

    def _take(self, lane: _Lane) -> list[tuple[_Lane | None, list[Call]]]:
        """What may enter the kernel now; the lock is held."""
        taken: list[tuple[_Lane | None, list[Call]]] = []
        now_ns = time.monotonic_ns()
        while lane.waiting and (lane.running < self._batching.num_batch_threads or self._open(lane, now_ns)):
            calls, gone = _first_rows(lane.waiting, self._batching.most_rows_run)
            if gone:
                taken.append((None, gone))
            if not calls:
                break
            if not lane.running:
                lane.opened_ns = now_ns
            lane.running += 1
            taken.append((lane, calls))
        return taken

    def _open(self, lane: _Lane, now_ns: int) -> bool:
        """True while the kernel still waits for rows to fill the batch that the first call opened."""
        return now_ns - lane.opened_ns < self._batching.batch_timeout_micros * 1000

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            while item is not None:
                item = self._run(*item)

    def _run(self, lane: _Lane | None, calls: list[Call]) -> tuple[_Lane | None, list[Call]] | None:
        """Run and answer these; returns what this thread shall run next."""
        begin_ns = time.perf_counter_ns()
        if lane is not None:
            live = _live(calls)
            if live and (began_s := run_batched(live, self._ran)) is not None:
                self._record.add(live, began_s, begin_ns)
        elif calls[0].error is None:
            run_alone(calls[0], self._ran)
        end_ns = time.perf_counter_ns()
        with self._lock:
            for call in calls:
                call.servable.waiting_rows -= call.rows
                call.micros = (end_ns - (begin_ns if lane is None else call.since_ns)) / 1000
            following = self._next(lane)
        _answer(calls)
        return following

    def _next(self, lane: _Lane | None) -> tuple[_Lane | None, list[Call]] | None:
        """The next task of the lane for this thread; further ones go to the queue. The lock is held."""
        if lane is None:
            return None
        lane.running -= 1
        taken = self._take(lane)
        for item in taken[1:]:
            self._queue.put(item)
        return taken[0] if taken else None

    def close(self) -> None:
        """End the threads once they have done what they were given."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=5)


_MOST_LANES = 256
"""Of one servable, before those that nothing waits in are forgotten."""


def _batchable(call: Call) -> bool:
    if not call.servable.batches(call.signature):
        return False
    rows, arrays = call.rows, call.arrays
    return rows > 0 and all(array.ndim and len(array) == rows for array in arrays)


def _first_rows(waiting: list[Call], most_rows: int) -> tuple[list[Call], list[Call]]:
    """Take calls from the front, in order, up to `most_rows` rows; beside them, dropped, those that nobody waits for.

    At least one is taken or dropped.
    """
    taken: list[Call] = []
    gone: list[Call] = []
    rows = count = 0
    for call in waiting:
        if call.caller.closed:
            drop(call)
            gone.append(call)
        elif taken and rows + call.rows > most_rows:
            break
        else:
            taken.append(call)
            rows += call.rows
        count += 1
    del waiting[:count]
    return taken, gone


def _live(calls: list[Call]) -> list[Call]:
    """Those that somebody waits for; the others are dropped."""
    live = [call for call in calls if not call.caller.closed]
    if len(live) < len(calls):
        for call in calls:
            if call not in live:
                drop(call)
    return live


def _full(rows: int, most_rows: int) -> RequestError:
    return RequestError(
        Code.UNAVAILABLE,
        "The batch scheduling queue to which this task was submitted is full; "
        f"task size is {rows}, and at most {most_rows} rows may wait",
    )


def _answer(calls: list[Call]) -> None:
    """Notify each caller; calls that share a `done`, as all of one event loop do, are notified together."""
    shared: dict[Callable[[list[Call]], None], list[Call]] = {}
    for call in calls:
        shared.setdefault(call.done, []).append(call)
    for done, theirs in shared.items():
        done(theirs)
