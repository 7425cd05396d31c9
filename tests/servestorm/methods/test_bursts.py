"""Bursts against loads whose queue is known to the request: violations, queue, recovery."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.arrivals.processes import constant, on_off
from loadtests.samples.recorder import SCHEMA
from servestorm.errors import StudyError
from servestorm.methods.bursts import LoadSamples, bursts
from servestorm.rundir.burst_samples import read_load
from tests.simulations import md1

SHAPE = {"on_s": 1.0, "off_s": 2.0, "duration_s": 6.0}
START_NS = 7_000_000_000_000


def load_of(scheduled_s, latency_ms, *, ok=None, dropped=None):
    """Requests in seconds from the start of the load; dropped ones never were under way."""
    scheduled_ns = START_NS + np.rint(np.asarray(scheduled_s) * 1e9).astype(np.int64)
    done_ns = scheduled_ns + np.rint(np.broadcast_to(latency_ms, scheduled_ns.shape) * 1e6).astype(np.int64)
    right = np.ones(scheduled_ns.size, bool) if ok is None else np.asarray(ok)
    if dropped is not None:
        done_ns, right = np.where(dropped, -1, done_ns), right & ~dropped
    return LoadSamples(scheduled_ns, done_ns, right, START_NS)


def every(gap_s, until_s=6.0):
    return np.arange(0, until_s, gap_s)


def test_bursts_lie_where_the_generator_puts_them():
    schedule_ns = on_off(50, 2000, 1.0, 2.0, 20.0, 3).whole()
    found = bursts(load_of(schedule_ns / 1e9, 1.0), on_s=1.0, off_s=2.0, duration_s=20.0)
    assert [(b.start_s, b.end_s) for b in found] == [(2, 3), (5, 6), (8, 9), (11, 12), (14, 15), (17, 18)]
    assert sum(b.requests for b in found) == (schedule_ns % 3_000_000_000 >= 2_000_000_000).sum()
    assert all(b.requests > 1500 for b in found)


def test_a_burst_that_the_end_of_the_load_cuts_is_shorter_and_nothing_is_seen_after_it():
    found = bursts(load_of(every(0.1), 1.0), on_s=1.0, off_s=2.0, duration_s=5.5, objective_ms=10.0)
    assert [(b.start_s, b.end_s, b.observed_s) for b in found] == [(2, 3, 2), (5, 5.5, 0)]
    assert [b.requests for b in found] == [10, 5]
    assert found[1].recover_s is None


def test_a_load_that_ends_before_its_first_burst_has_none():
    assert bursts(load_of(every(0.1), 1.0), on_s=1.0, off_s=2.0, duration_s=2.0) == []


def test_violations_are_late_or_failed_requests_of_the_burst_alone():
    times = every(0.1)
    latency_ms = np.where((times > 2.45) & (times < 3.25), 80.0, 5.0)  # five in the burst, two after it
    ok = np.ones(times.size, bool)
    ok[[21, 22, 40]] = False  # two in the burst
    first = bursts(load_of(times, latency_ms, ok=ok), objective_ms=50.0, **SHAPE)[0]
    assert (first.requests, first.failed, first.violations) == (10, 2, 7)


def test_without_an_objective_there_are_failures_but_no_violations():
    first = bursts(load_of(every(0.1), 5.0), **SHAPE)[0]
    assert (first.failed, first.violations) == (0, None)


def test_the_queue_is_what_is_due_and_has_not_ended():
    # one request every 10 ms that takes 55 ms: six are under way after each arrival, five 5 ms later
    first = bursts(load_of(every(0.01), 55.0), objective_ms=100.0, on_s=1.0, off_s=2.007, duration_s=6.0)[0]
    assert (first.queue_start, first.queue_peak, first.queue_end) == (5, 6, 5)


def test_a_request_that_ends_as_the_next_comes_leaves_one_under_way():
    assert bursts(load_of(every(0.01), 10.0), **SHAPE)[0].queue_peak == 1


def burst_of_300(off_s):
    """50/s, but 300/s for one second after `off_s`, at a server that does exactly 100/s."""
    times = np.concatenate(
        [
            constant(50, off_s).whole(),
            off_s * 1e9 + constant(300, 1.0).whole(),
            (off_s + 1) * 1e9 + constant(50, 9.0).whole(),
        ]
    )
    latency_ms = md1.simulated_ms(times / 1e9, 10.0)
    load = load_of(times / 1e9, latency_ms)
    return bursts(load, on_s=1.0, off_s=off_s, duration_s=off_s + 10, objective_ms=50.0)[0]


def test_the_queue_builds_up_at_the_rate_that_the_server_lacks():
    first = burst_of_300(off_s=8.0)
    assert first.queue_start <= 1
    assert first.queue_end == pytest.approx(200, abs=2)
    assert first.queue_peak == pytest.approx(200, abs=2)


def test_the_time_to_recover_is_that_until_the_backlog_is_worked_off():
    # 200 wait when the burst ends; with 100/s served and 50/s coming, under 5 wait (50 ms) after (200 - 4) / 50 s
    assert burst_of_300(off_s=8.0).recover_s == pytest.approx((200 - 4) / 50, abs=0.1)


def test_a_recovery_that_the_next_burst_comes_before_is_not_seen():
    first = burst_of_300(off_s=4.0)  # 3.9 s, and the half second to be sure of it ends after the next burst's begin
    assert (first.observed_s, first.recover_s) == (4, None)


def test_a_server_that_is_never_late_has_recovered_at_once():
    first = bursts(load_of(every(0.01), 5.0), objective_ms=50.0, **SHAPE)[0]
    assert first.recover_s == 0


def test_recovery_overlooks_one_late_request_in_twenty_but_not_one_in_ten():
    times = every(0.01)  # 50 requests in a window
    after = (times >= 3.0) & (times < 5.0)
    number = np.arange(times.size) - 300
    rare, often = (np.where(after & (number % every_nth == every_nth - 1), 80.0, 5.0) for every_nth in (25, 10))
    assert bursts(load_of(times, rare), objective_ms=50.0, **SHAPE)[0].recover_s == 0
    assert bursts(load_of(times, often), objective_ms=50.0, **SHAPE)[0].recover_s is None


def test_recovery_begins_with_a_request_that_is_itself_timely():
    times = every(0.01)
    latency_ms = np.where((times > 2.995) & (times < 3.205), 80.0, 5.0)  # 3.00 to 3.20
    assert bursts(load_of(times, latency_ms), objective_ms=50.0, **SHAPE)[0].recover_s == pytest.approx(0.21)


def test_silence_after_a_burst_is_no_recovery():
    times = every(0.01)
    times = times[(times < 3.0) | (times >= 4.9)]
    assert bursts(load_of(times, 5.0), objective_ms=50.0, **SHAPE)[0].recover_s is None


def test_without_an_objective_recovery_is_back_to_the_level_before_the_first_burst():
    times = every(0.01)
    latency_ms = np.where((times > 1.995) & (times < 3.295), 9.0, 5.0)
    assert bursts(load_of(times, latency_ms), **SHAPE)[0].recover_s == pytest.approx(0.3)
    few = times[(times >= 1.95)]
    assert bursts(load_of(few, 5.0), **SHAPE)[0].recover_s is None  # 5 requests before the burst are no level


def test_dropped_arrivals_fail_without_ever_being_under_way():
    times = every(0.01)
    dropped = (times > 2.495) & (times < 2.995)
    first = bursts(load_of(times, 5.0, dropped=dropped), objective_ms=50.0, **SHAPE)[0]
    assert (first.failed, first.violations) == (50, 50)
    assert first.queue_peak == 1


def samples_file(path, scheduled_ns, latency_ms, warmup):
    """samples.parquet in the order in which requests ended, as the generator writes it."""
    done_ns = scheduled_ns + (np.asarray(latency_ms) * 1e6).astype(np.int64)
    order = np.argsort(done_ns, kind="stable")
    constants = {"status": 200, "sent_bytes": 1, "received_bytes": 1, "endpoint": 0, "image": 0, "images": 1}
    columns = {name: np.full(order.size, value) for name, value in constants.items()}
    times = {"scheduled_ns": scheduled_ns[order], "sent_ns": scheduled_ns[order], "first_byte_ns": done_ns[order]}
    outcome = pa.array(["ok"] * order.size).dictionary_encode()
    columns |= times | {"done_ns": done_ns[order], "outcome": outcome, "correct": np.ones(order.size, bool)}
    columns["warmup"] = warmup[order]
    pq.write_table(pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in SCHEMA}), path)


def read_bursts(path, *, warmup_s, objective_ms=None, **shape):
    """The bursts of a file."""
    found = read_load(path, warmup_s)
    return bursts(found[0], **shape, objective_ms=objective_ms) if found else []


def test_a_file_of_samples_is_read_with_the_bursts_after_its_warm_up(tmp_path):
    scheduled_s = np.concatenate([every(0.1, 1.0), 1.0 + 0.03 + every(0.01, 5.95)])
    latency_ms = np.where(scheduled_s >= 3.0, 30.0, 5.0)  # the first burst begins 2 s after the warm-up of 1 s
    scheduled_ns = START_NS + np.rint(scheduled_s * 1e9).astype(np.int64)
    samples_file(tmp_path / "samples.parquet", scheduled_ns, latency_ms, scheduled_s < 1.0)
    found = read_bursts(tmp_path / "samples.parquet", warmup_s=1.0, objective_ms=20.0, **SHAPE)
    assert [b.start_s for b in found] == [2, 5]
    assert found[0].violations == found[0].requests == 100


def test_a_file_in_the_order_of_endings_gives_what_the_schedule_gives(tmp_path):
    times = every(0.01)
    latency_ms = np.where(np.arange(times.size) % 3 == 0, 400.0, 5.0)
    load = load_of(times, latency_ms)
    samples_file(tmp_path / "samples.parquet", load.scheduled_ns, latency_ms, np.zeros(times.size, bool))
    found = read_bursts(tmp_path / "samples.parquet", warmup_s=0.0, objective_ms=50.0, **SHAPE)
    assert found == bursts(load, objective_ms=50.0, **SHAPE)


def test_what_the_warm_up_left_under_way_is_in_the_queue(tmp_path):
    scheduled_s = np.concatenate([every(0.1, 1.0), 1.0 + every(0.1, 6.0)])
    latency_ms = np.where((scheduled_s > 0.65) & (scheduled_s < 0.95), 4000.0, 5.0)  # three until 4.7 s
    scheduled_ns = START_NS + np.rint(scheduled_s * 1e9).astype(np.int64)
    samples_file(tmp_path / "samples.parquet", scheduled_ns, latency_ms, scheduled_s < 1.0)
    found = read_bursts(tmp_path / "samples.parquet", warmup_s=1.0, objective_ms=20.0, **SHAPE)
    assert [b.queue_start for b in found] == [3, 0]
    assert found[0].requests == 10


@pytest.mark.parametrize("content", [b"", b"PAR1 not one"])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "samples.parquet"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"samples\.parquet is no whole file of samples"):
        read_bursts(path, warmup_s=0.0, **SHAPE)


def test_a_file_without_samples_has_no_bursts(tmp_path):
    pq.write_table(SCHEMA.empty_table(), tmp_path / "samples.parquet")
    assert read_bursts(tmp_path / "samples.parquet", warmup_s=1.0, **SHAPE) == []
