"""A load second by second: each request counts in its second, warm-up in none, and figures are of the samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.arrivals.blocks import RecordedSchedule
from loadtests.generator import jobs
from loadtests.generator.load import ROW
from loadtests.samples.seconds import COUNTS, Seconds, latency_of

NS = 1_000_000_000
MEASURED_FROM = 1_000 * NS + 123
SCHEDULED, SENT, DONE, OUTCOME = (ROW.index(name) for name in ("scheduled_ns", "sent_ns", "done_ns", "outcome"))


def rows_of(due_s, latency_s=0.005, outcome=jobs.OK):
    """Samples due at these seconds after the warm-up."""
    rows = np.zeros((len(due_s), len(ROW)), np.int64)
    rows[:, SCHEDULED] = MEASURED_FROM + (np.asarray(due_s) * NS).astype(np.int64)
    rows[:, SENT] = rows[:, SCHEDULED] + 1_000
    rows[:, DONE] = rows[:, SCHEDULED] + np.int64(latency_s * NS)
    rows[:, OUTCOME] = outcome
    if outcome == jobs.DROPPED:
        rows[:, [SENT, DONE]] = jobs.NEVER
    return rows


def seconds_of(*batches, planned=(), warmup_ns=0):
    seconds = Seconds(RecordedSchedule(np.asarray(planned, np.int64)), warmup_ns)
    for batch in batches:
        seconds.add(batch, MEASURED_FROM)
    return seconds


def finished(seconds):
    seconds.finished = True
    return seconds.table(0, seconds.seconds, seconds.seconds)


def evenly(rate, begin_s, end_s):
    return begin_s + np.arange(int(rate * (end_s - begin_s))) / rate


def test_a_burst_has_its_own_rate_in_its_seconds():
    due = np.concatenate([evenly(15, 0, 4), evenly(60, 4, 6), evenly(15, 6, 8)])
    table = finished(seconds_of(rows_of(due)))
    assert table["offered"] == [15, 15, 15, 15, 60, 60, 15, 15]
    assert table["answered"] == table["sent"] == table["offered"]


def test_what_is_to_come_is_known_from_the_schedule():
    planned = np.concatenate([evenly(10, 0, 2), evenly(15, 2, 4), evenly(60, 4, 6)]) * NS
    seconds = seconds_of(planned=planned.astype(np.int64), warmup_ns=2 * NS)
    assert seconds.planned() == [15, 15, 60, 60]
    assert seconds.table(0, 2, 2)["offered"] == [15, 15]


def test_warm_up_counts_nowhere_but_occupies_the_server():
    warmup, measured = rows_of([-0.5, -0.4], latency_s=1.0), rows_of([0.1])
    table = finished(seconds_of(warmup, measured))
    assert (table["offered"], table["answered"], table["max_ms"]) == ([1], [1], [5.0])
    slow = finished(seconds_of(rows_of([-0.5, -0.4], latency_s=2.0), rows_of([0.1, 1.1])))
    assert slow["in_flight"] == [2, 0]
    assert slow["answered"] == [1, 1]


def test_each_way_to_end_has_its_own_count():
    seconds = seconds_of(
        rows_of([0.1] * 5),
        rows_of([0.2] * 3, outcome=jobs.WRONG_ANSWER),
        rows_of([0.3], latency_s=1.0, outcome=jobs.TIMEOUT),
        rows_of([0.4] * 2, outcome=jobs.DROPPED),
    )
    seconds.finished = True
    assert seconds.totals(2) == {"offered": 11, "sent": 9, "answered": 5, "failed": 4, "dropped": 2}
    table = finished(seconds)
    assert (table["failed"], table["dropped"], table["in_flight"]) == ([3, 1], [2, 0], [1, 0])


def test_a_second_without_an_answer_has_no_latency():
    table = finished(seconds_of(rows_of([0.0]), rows_of([2.5], latency_s=0.02)))
    assert table["p50_ms"] == [5.0, None, 20.0]
    assert table["max_ms"] == [5.0, None, 20.0]


def test_a_p99_needs_as_many_answers_as_elsewhere():
    latencies = np.arange(1, 662) * 1_000_000
    assert latency_of(latencies).p99_ms is None
    enough = latency_of(np.arange(1, 663) * 1_000_000)
    assert (enough.p50_ms, enough.p99_ms, enough.max_ms) == (331.0, 656.0, 662.0)


def test_a_load_that_was_stopped_offered_what_its_samples_say():
    planned = (evenly(10, 0, 10) * NS).astype(np.int64)
    seconds = seconds_of(rows_of(evenly(10, 0, 2.5)), planned=planned)
    table = finished(seconds)
    assert table["offered"] == [10, 10, 5]
    assert table["in_flight"] == [0, 0, 0]


def test_requests_that_were_due_and_have_not_ended_are_in_flight():
    planned = (evenly(10, 0, 4) * NS).astype(np.int64)
    seconds = seconds_of(rows_of(evenly(10, 0, 1)), planned=planned)
    assert seconds.table(0, 3, 2)["in_flight"] == [0, 10, None]
    assert seconds.totals(2) == {"offered": 20, "sent": 10, "answered": 10, "failed": 0, "dropped": 0}


def test_a_closed_loop_offers_nothing():
    seconds = Seconds(None, 0)
    seconds.add(rows_of([0.0, 0.5], latency_s=0.8), MEASURED_FROM)
    table = finished(seconds)
    assert table["offered"] == [None, None]
    assert (table["sent"], table["answered"], table["in_flight"]) == ([2, 0], [1, 1], [1, 0])


def test_percentiles_of_a_second_long_ago_stay_and_late_answers_still_count():
    seconds = seconds_of(rows_of([0.1, 0.2, 0.3]), rows_of([100.0]), rows_of([0.4], latency_s=0.5))
    table = finished(seconds)
    assert (table["answered"][0], table["p50_ms"][0], table["max_ms"][0]) == (4, 5.0, 5.0)


EVENTS = st.lists(
    st.tuples(st.floats(-3, 12), st.floats(0, 4), st.sampled_from([jobs.OK, jobs.TIMEOUT, jobs.DROPPED])), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, order=st.randoms())
def test_batches_in_any_order_give_what_counting_one_by_one_gives(events, order):
    batches = [rows_of([due], latency, outcome) for due, latency, outcome in events]
    order.shuffle(batches)
    seconds = seconds_of(*batches)
    table = finished(seconds)
    rows = np.concatenate(batches) if batches else np.empty((0, len(ROW)), np.int64)
    after = rows - MEASURED_FROM
    measured = after[:, SCHEDULED] >= 0
    left = np.where(rows[:, DONE] >= 0, after[:, DONE], after[:, SCHEDULED])
    for second in range(seconds.seconds):
        of_second = measured & (left // NS == second)
        ok, dropped = rows[:, OUTCOME] == jobs.OK, rows[:, OUTCOME] == jobs.DROPPED
        assert table["offered"][second] == (measured & (after[:, SCHEDULED] // NS == second)).sum()
        assert table["answered"][second] == (of_second & ok).sum()
        assert table["failed"][second] == (of_second & ~ok & ~dropped).sum()
        assert table["dropped"][second] == (of_second & dropped).sum()
        until = (second + 1) * NS
        assert table["in_flight"][second] == ((after[:, SCHEDULED] < until) & (left >= until)).sum()
        latencies = np.sort((rows[:, DONE] - rows[:, SCHEDULED])[of_second & ok]) / 1e6
        if len(latencies):
            assert table["p50_ms"][second] == pytest.approx(latencies[-(-len(latencies) // 2) - 1])
            assert table["max_ms"][second] == pytest.approx(latencies[-1])
    assert {name: sum(table[name]) for name in COUNTS} == seconds.totals(seconds.seconds)
