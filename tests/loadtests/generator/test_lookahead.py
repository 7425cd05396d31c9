"""Arrivals are computed ahead of their time, and each of them is taken once, whoever computed it."""

import threading

import numpy as np

from loadtests.arrivals import processes
from loadtests.arrivals.blocks import NO_ARRIVALS, BlockSchedule
from loadtests.generator import lookahead
from loadtests.generator.lookahead import Lookahead


def test_all_arrivals_are_taken_in_order_while_another_thread_computes_ahead():
    schedule = processes.poisson(10_000.0, 120.0, 4)
    ahead, ended = Lookahead(schedule.deal(1, 2)), threading.Event()

    def refill():
        while not ended.is_set():
            ahead.refill()

    thread = threading.Thread(target=refill)
    thread.start()
    taken = []
    while block := ahead.take():
        taken.extend(block)
    ended.set()
    thread.join()
    assert taken == schedule.whole()[1::2].tolist()
    assert ahead.take() == []


def test_no_more_than_so_many_blocks_are_computed_before_they_are_taken():
    made = []

    def blocks():
        for number in range(1_000):
            made.append(number)
            yield np.full(8192, number, np.int64)

    ahead = Lookahead(BlockSchedule(blocks, 1.0))
    ahead.refill()
    assert len(made) <= lookahead._BLOCKS_AHEAD + 1
    for number in range(200):
        assert set(ahead.take()) == {number}  # nobody refills: who takes a block computes it
    ahead.end()
    assert ahead.take() == []


def test_a_closed_loop_has_nothing_ahead():
    assert Lookahead(NO_ARRIVALS).take() == []
