"""What nobody waits for any more is not run, its rows enter no batch, and nothing is kept of what is unloaded."""

import gc
import threading
import time
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest

from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.calls.dispatch import Dispatcher
from serving.savedmodel_server.dtypes import DT_FLOAT
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.batching import BatchingParameters
from serving.savedmodel_server.versions.signatures import Signature, TensorSpec

SIGNATURE = Signature(
    name="s", method_name="", inputs={"x": TensorSpec("x", "x:0", DT_FLOAT, (-1,))},
    outputs={"y": TensorSpec("y", "y:0", DT_FLOAT, (-1,))}, defaults={},
)  # fmt: skip


@dataclass
class Client:
    closed: bool = False


@dataclass(eq=False)
class HeldServable:
    """Notes the rows that it is to run, and runs none before `go`."""

    batched: bool
    fails: bool = False
    name: str = "m"
    version: int = 1
    waiting_rows: int = 0
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Event = field(default_factory=threading.Event)
    ran: list[list[float]] = field(default_factory=list)
    unbatched: dict = field(default_factory=dict)

    def batches(self, signature):
        return self.batched

    def check_rows(self, signature, arrays):
        pass

    def require_rows(self, signature, rows, outputs):
        pass

    def run_alone(self, signature, arrays, outputs):
        self.ran.append(arrays[0].tolist())
        self.begun.release()
        assert self.go.wait(30)
        return [arrays[0]]

    def run_batched(self, signature, calls, padding):
        rows = np.concatenate([arrays[0] for arrays in calls])
        self.run_alone(signature, (rows,), ())
        if self.fails:
            raise RequestError(Code.INVALID_ARGUMENT, "a bad row")
        return [rows]

    class options:
        batching = None


@pytest.mark.parametrize("batched", [True, False])
def test_calls_of_clients_that_left_while_they_waited_are_dropped(batched):
    servable = HeldServable(batched)
    dispatcher = Dispatcher(1, BatchingParameters(max_batch_size=8, num_batch_threads=1), Metrics())
    over = threading.Semaphore(0)
    clients = [Client() for _ in range(6)]

    def done(calls):
        for _ in calls:
            over.release()

    calls = [Call(servable, SIGNATURE, (np.array([i], np.float32),), done, c) for i, c in enumerate(clients)]
    try:
        dispatcher.submit(calls[:1])
        assert servable.begun.acquire(timeout=30)
        dispatcher.submit(calls[1:])
        for i in (0, 2, 3, 5):
            clients[i].closed = True
        servable.go.set()
        for _ in calls:
            assert over.acquire(timeout=30)
    finally:
        servable.go.set()
        dispatcher.close()
    assert servable.ran == ([[0.0], [1.0, 4.0]] if batched else [[0.0], [1.0], [4.0]])
    assert [i for i, call in enumerate(calls) if call.error is not None] == [2, 3, 5]
    assert {call.error.code for call in calls if call.error is not None} == {Code.CANCELLED}
    assert servable.waiting_rows == 0


def test_of_a_batch_that_failed_only_those_run_again_that_somebody_waits_for():
    servable = HeldServable(batched=True, fails=True)
    dispatcher = Dispatcher(1, BatchingParameters(max_batch_size=8, num_batch_threads=1), Metrics())
    over = threading.Semaphore(0)
    clients = [Client(), Client()]
    calls = [
        Call(servable, SIGNATURE, (np.array([i], np.float32),), lambda calls: over.release(), client)
        for i, client in enumerate(clients)
    ]
    try:
        dispatcher.submit(calls)
        assert servable.begun.acquire(timeout=30)
        clients[0].closed = True
        servable.go.set()
        for _ in calls:
            assert over.acquire(timeout=30)
    finally:
        servable.go.set()
        dispatcher.close()
    assert servable.ran == [[0.0, 1.0], [1.0]]


def test_a_call_of_a_client_that_left_before_is_not_run():
    servable = HeldServable(batched=False)
    servable.go.set()
    dispatcher = Dispatcher(1, None, Metrics())
    with pytest.raises(RequestError) as caught:
        dispatcher.run(servable, SIGNATURE, (np.zeros(1, np.float32),), Client(closed=True))
    dispatcher.close()
    assert caught.value.code is Code.CANCELLED and servable.ran == []


def test_a_servable_is_forgotten_with_its_last_call():
    servable = HeldServable(batched=True)
    servable.go.set()
    dispatcher = Dispatcher(1, BatchingParameters(), Metrics())
    try:
        assert len(dispatcher.run(servable, SIGNATURE, (np.zeros(2, np.float32),))[0]) == 2
        servable = weakref.ref(servable)
        until_s = time.monotonic() + 30
        while servable() is not None and time.monotonic() < until_s:  # the thread that ran it may be about to let go
            gc.collect()
        assert servable() is None
    finally:
        dispatcher.close()
