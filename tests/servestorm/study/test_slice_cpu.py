"""CPU time by slice, from readings in the gaps."""

from __future__ import annotations

import pytest

from servestorm.plan.turns import Slicing, turn_tables
from servestorm.study.slice_cpu import S_NS, CpuReading, reading_times_s, slice_files, slices_in_time

SLICING = Slicing(slices=3, length_s=2.0, gap_s=0.4, warmup_s=1.0)
TABLES = turn_tables(SLICING, 2, "1")
START_NS = 10**12
ORDER = slices_in_time(TABLES)
TIMES_S = reading_times_s(ORDER, SLICING.gap_s)
BUSY_S = (1.5, 0.5)
"""Used by each of the two in each of its own slices; an idle one uses 0.01."""


def made_up_readings(late=None):
    used = [100.0, 200.0]
    readings = []
    for place, due_s in enumerate(TIMES_S):
        if place:
            for owner in (0, 1):
                used[owner] += BUSY_S[owner] if ORDER[place - 1].owner == owner else 0.01
        t_ns = START_NS + round((due_s + (0.3 if place == late else 0.01)) * S_NS)
        readings.append([CpuReading(t_ns, seconds) for seconds in used])
    return readings


def test_readings_fall_into_the_gaps():
    turns = [turn for table in TABLES for turn in table]
    assert len(TIMES_S) == 7
    assert all(not turn.begin_s <= due_s <= turn.end_s for due_s in TIMES_S for turn in turns)


def test_each_slice_has_what_its_own_servers_used_and_what_they_used_while_the_other_was_loaded():
    for owner, file in enumerate(slice_files(TABLES, SLICING, START_NS, made_up_readings())):
        assert (file.lead_s, file.length_s, len(file.slices)) == (0.25, 2.0, 3)
        for one, turn in zip(file.slices, TABLES[owner][1:], strict=True):
            assert one.begin_ns == START_NS + round(turn.begin_s * S_NS)
            assert one.end_ns - one.begin_ns == pytest.approx(2.25 * S_NS)
            assert one.cpu_s == pytest.approx(BUSY_S[owner])
            assert one.idle_cpu_s == pytest.approx(0.01)
            assert one.idle_s == pytest.approx(2.65)


def test_a_reading_that_was_still_busy_in_the_next_slice_counts_for_none_of_its_neighbours():
    files = slice_files(TABLES, SLICING, START_NS, made_up_readings(late=2))
    unknown = [
        (owner, place) for owner, file in enumerate(files) for place, one in enumerate(file.slices) if one.cpu_s is None
    ]
    assert unknown == sorted([(ORDER[1].owner, 0), (ORDER[2].owner, 1)])


def test_slices_after_a_stop_are_planned_and_unknown():
    files = slice_files(TABLES, SLICING, START_NS, made_up_readings()[:3])
    assert [[one.cpu_s is None for one in file.slices] for file in files] == [[False, True, True]] * 2
    assert all(one.idle_cpu_s is None for file in slice_files(TABLES, SLICING, START_NS, []) for one in file.slices)


def test_with_three_deployments_idle_time_is_that_of_both_others():
    tables = turn_tables(SLICING, 3, "1")
    order = slices_in_time(tables)
    readings = [
        [CpuReading(START_NS + round(due_s * S_NS), place * 0.02)] * 3
        for place, due_s in enumerate(reading_times_s(order, SLICING.gap_s))
    ]
    for file in slice_files(tables, SLICING, START_NS, readings):
        assert all(one.idle_cpu_s == pytest.approx(0.04) and one.idle_s == pytest.approx(5.3) for one in file.slices)
