"""Samples of a load in turns: which are measured, and how they look with the waits taken out."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.generator.jobs import NEVER
from loadtests.generator.load import ROW
from loadtests.samples.recorder import TIMES, measured_rows, table_of, without_gaps

BEGINS = np.array([1_000, 5_000, 9_000])
MEASURED = MeasuredTime(BEGINS, BEGINS + np.array([500, 1_000, 250]))
PLACES = [ROW.index(name) for name in TIMES]


def rows_at(moments, latency=20):
    rows = np.zeros((len(moments), len(ROW)), np.int64)
    rows[:, PLACES] = np.asarray(moments, np.int64)[:, None] + [0, 1, latency, latency]
    return rows


MOMENTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(moments=MOMENTS)
def test_a_sample_is_warm_up_exactly_where_it_was_due_outside_of_the_turns(moments):
    rows = rows_at(moments)
    expected = [not any(b <= m < e for b, e in zip(BEGINS, MEASURED.end_ns, strict=True)) for m in moments]
    assert table_of(rows, 1, MEASURED)["warmup"].to_pylist() == expected
    assert len(measured_rows(rows, MEASURED)) == len(moments) - sum(expected)


@settings(max_examples=200, deadline=None)
@given(moments=MOMENTS)
def test_without_the_waits_turns_follow_each_other_and_latencies_stay(moments):
    rows = measured_rows(rows_at(moments), MEASURED)
    moved = without_gaps(rows, MEASURED)
    assert (np.diff(moved[:, PLACES], axis=1) == np.diff(rows[:, PLACES], axis=1)).all()
    ends = {1_000: 1_000, 5_000: 1_500, 9_000: 2_500}
    begins = BEGINS[MEASURED.interval_of(rows[:, 0])]
    assert (moved[:, 0] - rows[:, 0] == [ends[begin] - begin for begin in begins.tolist()]).all()


def test_what_never_happened_stays_so_and_a_load_without_turns_has_no_waits():
    rows = rows_at([5_100])
    rows[0, PLACES[1:]] = NEVER
    assert without_gaps(rows, MEASURED)[0, PLACES].tolist() == [1_600, NEVER, NEVER, NEVER]
    assert (without_gaps(rows, MeasuredTime.since(7)) == rows).all()
