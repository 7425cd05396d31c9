"""What a lost worker takes with it: the arrivals that it was dealt and no sample came of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.arrivals import processes, unseen
from loadtests.arrivals.blocks import NO_ARRIVALS, BlockSchedule, RecordedSchedule
from loadtests.arrivals.unseen import Unseen


@settings(max_examples=200, deadline=None)
@given(
    moments=st.lists(st.integers(0, 40), max_size=60).map(sorted),
    workers=st.integers(1, 5),
    settled=st.integers(1, 30),
    data=st.data(),
)
def test_what_was_dealt_is_either_seen_or_left(moments, workers, settled, data):
    schedule = RecordedSchedule(np.array(moments, np.int64))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(moments)), max_size=4)))
    in_blocks = BlockSchedule(lambda: iter(np.split(schedule.whole(), cuts)), len(moments))
    account = Unseen(in_blocks, workers)
    left = {worker: schedule.deal(worker, workers).whole().tolist() for worker in range(workers)}
    before, unseen._SETTLED_ARRIVALS = unseen._SETTLED_ARRIVALS, settled
    try:
        for _ in range(data.draw(st.integers(0, 8))):
            worker = data.draw(st.integers(0, workers - 1))
            batch = data.draw(st.lists(st.sampled_from(left[worker]), max_size=9, unique=True)) if left[worker] else []
            for moment in batch:
                left[worker].remove(moment)
            account.see(worker, np.array(batch, np.int64))
    finally:
        unseen._SETTLED_ARRIVALS = before
    lost = data.draw(st.lists(st.integers(0, workers - 1), unique=True, min_size=1))
    rest = np.concatenate(list(account.rest(lost))).tolist()
    assert sorted(rest) == sorted(moment for worker in lost for moment in left[worker])


def test_a_long_load_is_accounted_for_in_the_memory_of_what_is_under_way():
    schedule = processes.poisson(1_000.0, 3_000.0, 5)
    account = Unseen(schedule, 2)
    dealt = 0
    for block in schedule.blocks():
        for worker in range(2):
            account.see(worker, block[(worker - dealt) % 2 :: 2])
        dealt += len(block)
        held = sum(map(len, account._left)) + account._waiting
        assert held < unseen._SETTLED_ARRIVALS + 3 * 8_192
    assert sum(map(len, account.rest([0, 1]))) == 0


def test_a_closed_loop_has_no_schedule_and_loses_none_of_it():
    account = Unseen(NO_ARRIVALS, 2)
    account.see(1, np.array([5, 7], np.int64))
    assert sum(map(len, account.rest([0, 1]))) == 0
