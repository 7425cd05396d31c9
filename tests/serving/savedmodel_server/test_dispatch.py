"""When a batch begins: it waits for the clients that the last one set free, and not for long."""

import threading

import numpy as np
import pytest

from serving.savedmodel_server.calls import dispatch
from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.calls.dispatch import Dispatcher
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.batching import BatchingParameters
from tests.serving.savedmodel_server.test_dropped_calls import SIGNATURE, HeldServable

ONE_THREAD = BatchingParameters(max_batch_size=8, num_batch_threads=1)


@pytest.fixture
def dispatched():
    """A dispatcher, ended with the test."""
    made = []

    def make(parameters):
        made.append(Dispatcher(1, parameters, Metrics()))
        return made[0]

    yield make
    for dispatcher in made:
        dispatcher.close()


def call(servable, value, done=lambda calls: None):
    return Call(servable, SIGNATURE, (np.array([value], np.float32),), done)


def test_a_batch_waits_for_the_clients_that_the_last_one_set_free(dispatched, monkeypatch):
    monkeypatch.setattr(dispatch, "GATHERING_SHARE", 1e6)  # of the run: nothing but their calls ends the wait
    servable, over = HeldServable(batched=True), threading.Semaphore(0)
    dispatcher = dispatched(ONE_THREAD)

    def done(calls):
        for _ in calls:
            over.release()

    dispatcher.submit([call(servable, 0, done), call(servable, 1, done)])
    assert servable.begun.acquire(timeout=30)
    servable.go.set()
    assert over.acquire(timeout=30) and over.acquire(timeout=30)
    for value in (2, 3):
        dispatcher.submit([call(servable, value, done)])
    assert over.acquire(timeout=30) and over.acquire(timeout=30)
    assert servable.ran == [[0.0, 1.0], [2.0, 3.0]]


def test_clients_that_do_not_come_back_are_not_waited_for_long(dispatched):
    servable, over = HeldServable(batched=True), threading.Semaphore(0)
    servable.go.set()
    dispatcher = dispatched(ONE_THREAD)
    dispatcher.submit([call(servable, 0, lambda calls: over.release()), call(servable, 1)])
    assert over.acquire(timeout=30)
    dispatcher.submit([call(servable, 2, lambda calls: over.release())])
    assert over.acquire(timeout=30)
