"""When a load is DISTURBED: by a share of the machine over its limit, and by nothing else."""

from __future__ import annotations

import math

import pytest

from servestorm.methods.disturbance import DisturbanceLimits, MachineShares, disturbance, share_percent, worst

LIMITS = DisturbanceLimits()


@pytest.mark.parametrize(
    ("shares", "cause", "words"),
    [
        (MachineShares(74.2, 0.0), "other_load", "other programs used 74 % of the study's cores"),
        (MachineShares(0.0, 5.6), "steal", "the hypervisor took 6 % of the study's cores for other machines (steal)"),
        (MachineShares(0.0, 0.0, 8.0), "servers_swapped", "8 % of the servers' memory was in swap"),
        (MachineShares(16.0, 20.0), "steal", "took 20 %"),  # four times its limit
    ],
)
def test_a_share_over_its_limit_is_named_and_the_farthest_over_comes_first(shares, cause, words):
    found = disturbance(shares, LIMITS)
    assert found.cause == cause
    assert words in found.reason
    assert found.percent > found.limit_percent


@pytest.mark.parametrize(
    "shares", [MachineShares(15.0, 5.0, 1.0), MachineShares(None, None, None), MachineShares(3.0, None)]
)
def test_what_is_within_the_limits_or_unknown_disturbs_nothing(shares):
    assert disturbance(shares, LIMITS) is None


def test_a_share_that_is_not_judged_never_disturbs():
    assert disturbance(MachineShares(100.4, 0.0), DisturbanceLimits(other_percent=math.inf)) is None


def test_the_worst_is_the_farthest_over_its_own_limit():
    other, steal = disturbance(MachineShares(60.0, 0.0), LIMITS), disturbance(MachineShares(0.0, 50.0), LIMITS)
    assert worst([other, steal]) == steal
    assert worst([]) is None


@pytest.mark.parametrize(
    ("used_s", "elapsed_s", "cores"), [(None, 10.0, 2), (1.0, None, 2), (1.0, 0.0, 2), (1.0, 1.0, 0)]
)
def test_a_share_of_no_time_is_unknown(used_s, elapsed_s, cores):
    assert share_percent(used_s, elapsed_s, cores) is None


def test_a_share_is_of_the_time_of_all_cores():
    assert share_percent(14.8, 10.0, 2) == pytest.approx(74.0)
