"""What the batching metrics count is what TensorFlow Serving's batching session counts."""

import pytest

from serving.savedmodel_server.calls.batch_record import BatchRecord
from serving.savedmodel_server.metrics import Metrics

QUEUED = ":tensorflow:serving:batching_session:queuing_latency"


class TimedCall:
    """A call that entered the queue at `since_ms` of the performance counter."""

    def __init__(self, since_ms, offset=0):
        self.since_ns, self.offset = since_ms * 1_000_000, offset


def counted(metrics):
    """(waits, their sum in ms, batches)."""
    page = metrics.page().decode()
    numbers = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    label = '{thread_pool_name="pool"}'
    batches = numbers[":tensorflow:serving:batching_session:wrapped_run_count"]
    return int(numbers[f"{QUEUED}_count{label}"]), float(numbers[f"{QUEUED}_sum{label}"]) / 1000, int(batches)


def test_every_request_of_a_batch_counts_its_own_wait_and_the_batch_counts_once():
    metrics = Metrics()
    BatchRecord(metrics, "pool").add([TimedCall(20), TimedCall(30), TimedCall(40)], began_ns=60_000_000)
    assert counted(metrics) == (3, pytest.approx(40 + 30 + 20), 1)


def test_a_request_that_was_split_waits_for_the_first_of_its_batches():
    metrics = Metrics()
    record = BatchRecord(metrics, "pool")
    record.add([TimedCall(20)], began_ns=30_000_000)
    record.add([TimedCall(20, offset=2), TimedCall(25)], began_ns=50_000_000)
    assert counted(metrics) == (2, pytest.approx(10 + 25), 2)
