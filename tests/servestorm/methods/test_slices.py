"""Slices of a load: their share of the machine, and when a run is DISTURBED as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from servestorm.methods.disturbance import Disturbance, DisturbanceLimits
from servestorm.methods.slices import MachineTimes, disturbances, of_round, whole, with_disturbance

S = 10**9
LIMITS = DisturbanceLimits()


def machine(other, steal=None, begin_s=0) -> MachineTimes:
    begin_ns = (begin_s + np.arange(len(other))) * S
    none = np.zeros(len(other))
    return MachineTimes(begin_ns, begin_ns + S, np.array(other, float), none if steal is None else np.array(steal))


def found(begin_s, end_s, times: MachineTimes) -> list[Disturbance | None]:
    begin_ns, end_ns = (np.array([round(t * S) for t in of], np.int64) for of in (begin_s, end_s))
    return disturbances(begin_ns, end_ns, times, LIMITS)


def test_a_slice_has_the_mean_share_of_the_seconds_that_overlap_it_by_their_overlap():
    (one,) = found([0.5], [2.5], machine([0.2, 0.4, 0.8]))
    assert (one.cause, one.percent) == ("other_load", pytest.approx(100 * (0.1 + 0.4 + 0.4) / 2))


def test_a_hiccup_of_one_second_disturbs_that_second_alone():
    seconds = found(range(10), range(1, 11), machine([0.0] * 4 + [0.9] + [0.0] * 5))
    assert [place for place, one in enumerate(seconds) if one] == [4]


def test_the_share_farthest_over_its_limit_is_the_cause():
    (one,) = found([0], [1], machine([0.2], steal=[0.4]))
    assert (one.cause, one.percent) == ("steal", pytest.approx(40.0))


def test_what_nobody_recorded_disturbs_nothing():
    assert found([0, 20], [1, 21], machine([0.9, 0.9], begin_s=5)) == [None, None]
    assert found([0], [2], machine([np.nan, np.nan])) == [None]
    (one,) = found([0], [2], machine([np.nan, 0.5]))
    assert one.percent == pytest.approx(50.0)
    assert machine([np.nan, np.nan]).watched == {"steal"}


def test_neighbours_in_a_round_are_disturbed_together_by_the_worse_of_the_two():
    mild, bad = (Disturbance("other_load", percent, 15.0, "") for percent in (20.0, 60.0))
    assert of_round([[None, mild, mild], [None, None, bad]]) == [None, mild, bad]


@pytest.mark.parametrize(("disturbed", "of", "whole_run"), [(5, 10, False), (6, 10, True), (0, 1, False), (1, 1, True)])
def test_a_run_is_disturbed_where_more_than_half_of_its_slices_are(disturbed, of, whole_run):
    one = Disturbance("steal", 8.0, 5.0, "")
    use = with_disturbance(
        whole(S, of * S - 1, of), [one] * disturbed + [None] * (of - disturbed), frozenset(), "seconds"
    )
    assert (use.disturbance is not None) is whole_run
    assert use.counted().sum() == (of if whole_run else of - disturbed)
    if use.disturbance:
        assert use.disturbance.reason.endswith(f"(steal) in {disturbed} of {of} seconds")


def test_the_last_slice_may_be_shorter():
    assert whole(6 * S, 14 * S, 15.0).measured_s.tolist() == [6.0, 6.0, 3.0]
    assert whole(S, 0, 0.5).measured_s.tolist() == [0.5]
