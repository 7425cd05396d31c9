"""The turns of a round: complete, one at a time, neighbours, and the same for the same seed."""

from __future__ import annotations

import itertools

import pytest

from servestorm.plan.scenarios import Bursty, Steady
from servestorm.plan.turns import LEAD_S, LONG_GAP_S, Slicing, bursty_slicing, steady_slicing, turn_tables

SLICING = Slicing(slices=6, length_s=2.0, gap_s=0.3, warmup_s=3.0)


def in_time(tables):
    return sorted(((turn, owner) for owner, table in enumerate(tables) for turn in table), key=lambda x: x[0].begin_s)


@pytest.mark.parametrize("deployments", [2, 3])
def test_only_one_deployment_is_loaded_at_a_time_and_a_gap_follows_each_turn(deployments):
    turns = [turn for turn, _ in in_time(turn_tables(SLICING, deployments, "1"))]
    assert len(turns) == deployments * 7
    for turn, following in itertools.pairwise(turns):
        assert following.begin_s == pytest.approx(turn.end_s + 0.3)
    assert turns[-1].end_s + 0.3 == pytest.approx(SLICING.seconds(deployments))


def test_every_deployment_is_warmed_up_before_the_first_slice():
    tables = turn_tables(SLICING, 2, "1")
    first = min(turn.begin_s for table in tables for turn in table if turn.length_s)
    for warmup, *slices in tables:
        assert (warmup.lead_s, warmup.length_s) == (3.0, 0.0) and warmup.end_s < first
        assert {(turn.lead_s, turn.length_s) for turn in slices} == {(LEAD_S, 2.0)} and len(slices) == 6


def test_slices_of_the_same_number_are_neighbours_in_an_order_that_the_seed_decides():
    def order(seed):
        return [owner for turn, owner in in_time(turn_tables(SLICING, 2, seed)) if turn.length_s]

    pairs = list(itertools.batched(order("1"), 2)) if hasattr(itertools, "batched") else None
    pairs = pairs or list(zip(order("1")[::2], order("1")[1::2], strict=True))
    assert all(set(pair) == {0, 1} for pair in pairs)
    assert order("1") == order("1")
    assert len({tuple(order(str(seed))) for seed in range(8)}) > 4


def test_without_a_warm_up_the_first_slice_still_has_a_gap_before_it():
    tables = turn_tables(Slicing(2, 1.0, 0.3, 0.0), 2, "1")
    assert [len(table) for table in tables] == [2, 2]
    assert min(turn.begin_s for table in tables for turn in table) >= 0.3


@pytest.mark.parametrize(("duration_s", "slices", "length_s"), [(10, 5, 2), (11.1, 6, 2), (1, 1, 1), (2.9, 1, 2)])
def test_a_steady_load_is_cut_into_whole_slices(duration_s, slices, length_s):
    cut = steady_slicing(Steady(rate_per_s=70, duration_s=duration_s), "process")
    assert (cut.slices, cut.length_s, cut.warmup_s, cut.measured_s) == (slices, length_s, 2, slices * length_s)


@pytest.mark.parametrize(("duration_s", "cycles"), [(12, 3), (13, 3), (1, 1)])
def test_a_slice_of_a_bursty_load_is_a_whole_cycle(duration_s, cycles):
    cut = bursty_slicing(Bursty(base_rate=1, peak_rate=2, on_s=1.5, off_s=2.5, duration_s=duration_s))
    assert (cut.slices, cut.length_s, cut.gap_s) == (cycles, 4.0, LONG_GAP_S)


def test_a_gap_is_longer_where_a_container_or_a_pod_is_asked():
    steady = Steady(rate_per_s=70, duration_s=10)
    assert [steady_slicing(steady, where).gap_s for where in ("process", "docker", "kubernetes")] == [0.3, 1.0, 1.0]
