"""What the batching metrics count is what TensorFlow Serving's batching session counts."""

import pytest

from serving.savedmodel_server.calls import batch_record
from serving.savedmodel_server.calls.batch_record import BatchRecord
from serving.savedmodel_server.metrics import Metrics

QUEUED = ":tensorflow:serving:batching_session:queuing_latency"
UNIX_S = 1_700_000_000.0


class TimedCall:
    """A call that entered the queue at `since_ms` of the performance counter."""

    def __init__(self, since_ms, rows=1):
        self.since_ns, self.rows, self.outputs = since_ms * 1_000_000, rows, None


@pytest.fixture
def record(monkeypatch):
    """Counts at 100 ms of the performance counter, when it is UNIX_S + 0.1 s by the wall clock."""
    monkeypatch.setattr(batch_record.time, "perf_counter_ns", lambda: 100_000_000)
    monkeypatch.setattr(batch_record.time, "time_ns", lambda: int(UNIX_S * 1e9) + 100_000_000)
    metrics = Metrics()
    made = BatchRecord(metrics, "pool")
    made.page = lambda: metrics.page().decode()
    return made


def counted(record):
    """(waits, their sum in ms, batches)."""
    numbers = dict(line.rsplit(" ", 1) for line in record.page().splitlines() if not line.startswith("#"))
    label = '{thread_pool_name="pool"}'
    batches = numbers[":tensorflow:serving:batching_session:wrapped_run_count"]
    return int(numbers[f"{QUEUED}_count{label}"]), float(numbers[f"{QUEUED}_sum{label}"]) / 1000, int(batches)


def at(ms):
    """The wall clock at a time of the performance counter."""
    return UNIX_S + ms / 1000


def test_every_request_of_a_batch_counts_its_own_wait_and_the_batch_counts_once(record):
    record.add([TimedCall(20), TimedCall(30)], [at(60), at(60)], entered_ns=0)
    record.add([TimedCall(40)], [at(60)], entered_ns=0)
    record.add([TimedCall(50)], [at(60)], entered_ns=0)
    waits, sum_ms, batches = counted(record)
    assert (waits, batches) == (4, 1)
    assert sum_ms == pytest.approx(40 + 30 + 20 + 10, abs=0.01)


def test_batches_that_began_apart_count_apart(record):
    record.add([TimedCall(20)], [at(60)], entered_ns=0)
    record.add([TimedCall(20)], [at(61)], entered_ns=0)
    assert counted(record)[::2] == (2, 2)


def test_a_request_that_was_split_waits_for_the_first_of_its_batches(record):
    record.add([TimedCall(20, rows=4), TimedCall(25)], [at(30), at(30), at(50), at(50), at(50)], entered_ns=0)
    waits, sum_ms, batches = counted(record)
    assert (waits, batches) == (2, 2) and sum_ms == pytest.approx(10 + 25, abs=0.01)


def test_a_batch_that_failed_counts_with_the_wait_before_it(record):
    record.add([TimedCall(20)], [], entered_ns=25_000_000)
    assert counted(record) == (1, pytest.approx(5.0), 1)


@pytest.mark.parametrize(("began_ms", "wait_ms"), [(-5000, 0.0), (5000, 80.0)])
def test_a_wall_clock_that_was_set_meanwhile_bounds_the_wait_by_the_request(record, began_ms, wait_ms):
    record.add([TimedCall(20)], [at(began_ms)], entered_ns=0)
    assert counted(record)[1] == pytest.approx(wait_ms)


def test_the_batches_that_are_remembered_have_a_bound(record):
    for number in range(1000):
        record.add([TimedCall(20)], [at(60 + number / 1000)], entered_ns=0)
    assert len(record._beginnings_s) == 256 and counted(record)[2] == 1000
