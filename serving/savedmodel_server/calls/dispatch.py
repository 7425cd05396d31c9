"""Takes calls from the event loop and from gRPC's threads into TensorFlow, alone or in batches.

A batch is joined from the calls' arrays and run in one call of TensorFlow by a batch thread: no thread of a request
waits in between. A call whose caller has gone meanwhile is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from threading import Condition, Lock, Thread

from serving.savedmodel_server.calls.batch_queue import BatchQueue
from serving.savedmodel_server.calls.batch_record import BatchRecord
from serving.savedmodel_server.calls.call import ANYBODY, Call, Caller
from serving.savedmodel_server.calls.runs import drop, run_alone, run_batch
from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.batching import BatchingParameters
from serving.savedmodel_server.versions.servable import Servable
from serving.savedmodel_server.versions.signatures import Signature

GATHERING_SHARE = 0.05
"""Of a batch's run: how long the next one may wait for the clients that this one has just answered."""
MOST_ROWS = 1 << 16
"""Rows that may wait without batching, whose parameters would else set the number."""


class Dispatcher:
    """Runs calls on threads of its own; safe from any thread."""

    def __init__(self, threads: int, batching: BatchingParameters | None, metrics: Metrics) -> None:
        self._parameters = batching or BatchingParameters()
        self._ran = metrics.count_graph_run
        self._record = BatchRecord(metrics, self._parameters.thread_pool_name)
        self._most_rows = batching.most_rows if batching else MOST_ROWS
        self._waiting = BatchQueue(self._parameters)
        self._batches_running = 0
        self._lock = Lock()
        self._due = Condition(self._lock)
        self._gathered = Condition(self._lock)
        self._gathering_rows = 0
        """Rows that the next batch waits for; 0 where it does not wait."""
        self._is_timing = False
        self._closed = False
        self._alone: SimpleQueue[Call | None] = SimpleQueue()
        self._batches: SimpleQueue[list[Call] | None] = SimpleQueue()
        self._threads = [Thread(target=self._run_calls, name=f"run-{i}", daemon=True) for i in range(threads)]
        if batching is not None:
            names = [f"{batching.thread_pool_name}-{i}" for i in range(batching.num_batch_threads)]
            self._threads += [Thread(target=self._run_batches, name=name, daemon=True) for name in names]
            if batching.batch_timeout_micros:
                self._threads.append(Thread(target=self._release_due, name="batch-timeouts", daemon=True))
        for thread in self._threads:
            thread.start()

    def run(
        self, servable: Servable, signature: Signature, arrays: tuple[Array, ...], caller: Caller = ANYBODY
    ) -> Sequence[Array]:
        """All outputs, in order: run with others' rows where batching is on, else here. Raises RequestError."""
        over = Lock()
        over.acquire()
        call = Call(servable, signature, arrays, lambda calls: over.release(), caller)
        if _may_share(call):
            self.submit([call])
            over.acquire()
        else:
            self._record.count_unbatched(call)
            run_alone(call, self._ran)
        if call.outputs is None:
            raise call.error or RequestError(Code.INTERNAL, "A run ended without outputs.")
        return call.outputs

    def submit(self, calls: Iterable[Call]) -> None:
        """Run these; calls of one kind that come together run together where batching is on."""
        ended: list[Call] = []
        with self._lock:
            for call in calls:
                self._admit(call, ended)
            self._begin_batches(ended)
            if not self._is_timing and self._batches_running < self._parameters.num_batch_threads:
                self._due.notify()
        _answer(ended)

    def _admit(self, call: Call, ended: list[Call]) -> None:
        """Let a call wait for its run, or end it where it cannot run; the lock is held."""
        servable = call.servable
        if servable.waiting_rows + call.rows > max(self._most_rows, call.rows):
            call.error = _full(call.rows, self._most_rows)
        elif _may_share(call):
            if _is_fit(call):
                self._waiting.add(call)
        else:
            self._record.count_unbatched(call)
            self._alone.put(call)
        if call.error is None:
            servable.waiting_rows += call.rows
        else:
            ended.append(call)

    def _begin_batches(self, ended: list[Call]) -> None:
        """Give idle batch threads what may run now; the lock is held."""
        if self._gathering_rows:
            if self._waiting.rows >= self._gathering_rows:
                self._gathered.notify()
            return
        while self._batches_running < self._parameters.num_batch_threads:
            batch = self._next_batch(ended)
            if not batch:
                return
            self._batches_running += 1
            self._batches.put(batch)

    def _next_batch(self, ended: list[Call]) -> list[Call]:
        """Empty where none may run now; the lock is held."""
        batch, gone = self._waiting.take(time.perf_counter_ns())
        self._settle(gone)
        ended += gone
        return batch

    def _settle(self, calls: list[Call]) -> None:
        """Count what has ended; the lock is held."""
        end_ns = time.perf_counter_ns()
        for call in calls:
            call.servable.waiting_rows -= call.rows
            call.micros = (end_ns - call.since_ns) / 1000

    def _run_calls(self) -> None:
        while (call := self._alone.get()) is not None:
            run_alone(call, self._ran)
            with self._lock:
                self._settle([call])
            _answer([call])
            del call  # with its servable, which may be unloaded by the time of the next one

    def _run_batches(self) -> None:
        while (batch := self._batches.get()) is not None:
            while batch:
                batch = self._run_batch(batch)

    def _run_batch(self, batch: list[Call]) -> list[Call]:
        """Run and answer a batch; the one that this thread shall run next, which may be empty."""
        began_ns = time.perf_counter_ns()
        if live := _live(batch):
            self._run_live(live)
        took_s = (time.perf_counter_ns() - began_ns) / 1e9
        with self._lock:
            self._settle(batch)
            if len(live) > 1 and self._batches_running == 1 and not self._closed:
                self._gathering_rows = sum(call.rows for call in live)
        _answer(batch)
        ended: list[Call] = []
        following = self._following(took_s * GATHERING_SHARE, ended)
        _answer(ended)
        return following

    def _following(self, gathering_s: float, ended: list[Call]) -> list[Call]:
        """The batch after one that has been answered, and in `ended` calls that are dropped for it.

        A batch that was answered sets its clients free all at once. One that began with the first of their next calls
        would hold one row and let the others wait: so they are waited for, `gathering_s` at the most.
        """
        with self._lock:
            if self._gathering_rows:
                if self._waiting.rows < self._gathering_rows:
                    self._gathered.wait(gathering_s)
                self._gathering_rows = 0
            following = self._next_batch(ended)
            if following:
                self._begin_batches(ended)
            else:
                self._batches_running -= 1
                self._due.notify()
            return following

    def _run_live(self, batch: list[Call]) -> None:
        began_ns = time.perf_counter_ns()
        if not run_batch(batch, self._parameters, self._ran):
            self._record.count_reruns(batch)
        self._record.add(batch, began_ns)

    def _release_due(self) -> None:
        """Begin batches that are not full when their time is over, on a thread of its own."""
        ended: list[Call] = []
        while not self._closed:
            with self._lock:
                self._await_due()
                self._begin_batches(ended)
            _answer(ended)
            ended.clear()

    def _await_due(self) -> None:
        """Wait until a batch may be due, or something changes; the lock is held, and given up meanwhile."""
        due_ns = self._waiting.due_ns()
        if self._closed:
            return
        if due_ns is None or self._batches_running >= self._parameters.num_batch_threads:
            self._due.wait()
        elif (wait_ns := due_ns - time.perf_counter_ns()) > 0:
            self._is_timing = True  # what comes meanwhile is due later
            self._due.wait(wait_ns / 1e9)
            self._is_timing = False

    def close(self) -> None:
        """End the threads once they have done what they were given."""
        with self._lock:
            self._closed = True
            self._due.notify_all()
            self._gathered.notify_all()
        for _ in self._threads:
            self._alone.put(None)
            self._batches.put(None)
        for thread in self._threads:
            thread.join(timeout=5)


def _may_share(call: Call) -> bool:
    if not call.servable.batches(call.signature):
        return False
    rows, arrays = call.rows, call.arrays
    return rows > 0 and all(array.ndim for array in arrays)


def _is_fit(call: Call) -> bool:
    """Whether a batch may take the call; else its error is set."""
    try:
        call.servable.check_rows(call.signature, call.arrays)
    except RequestError as error:
        call.error = error
    return call.error is None


def _live(batch: list[Call]) -> list[Call]:
    """Those that somebody waits for; the others are dropped."""
    live = []
    for call in batch:
        if call.caller.closed:
            drop(call)
        else:
            live.append(call)
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
