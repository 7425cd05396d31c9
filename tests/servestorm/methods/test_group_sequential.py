"""Group-sequential levels: the published boundaries, and what all looks together decide wrongly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from servestorm.methods.group_sequential import level_used, nominal_level, spent
from tests.simulations.verdicts import Share


def boundaries(alpha, shares):
    """Two-sided z at each look."""
    return [norm.isf(nominal_level(alpha, shares[: look + 1]) / 2) for look in range(len(shares))]


def equal(count):
    return [(look + 1) / count for look in range(count)]


@pytest.mark.parametrize(
    "published",
    [
        # Lan and DeMets 1983, O'Brien-Fleming type, alpha 0.05 two-sided, as in Proschan, Lan and Wittes, Statistical
        # Monitoring of Clinical Trials (2006), and in the R package ldbounds
        [2.963, 1.969],
        [3.710, 2.511, 1.993],
        [4.333, 2.963, 2.359, 2.014],
        [4.877, 3.357, 2.680, 2.290, 2.031],
    ],
)
def test_the_boundaries_of_equal_looks_are_the_published_ones(published):
    assert boundaries(0.05, equal(len(published))) == pytest.approx(published, abs=0.0006)


def test_without_a_look_before_the_end_the_level_is_alpha():
    assert nominal_level(0.05, []) == 0.05
    assert nominal_level(0.05, [1.0]) == pytest.approx(0.05, rel=1e-9)
    assert nominal_level(0.01, [1.0]) == pytest.approx(0.01, rel=1e-9)


def test_all_of_alpha_is_spent_at_the_end():
    assert spent(0.05, 1.0) == pytest.approx(0.05)
    assert spent(0.05, 0.5) == pytest.approx(4 * norm.sf(norm.isf(0.0125) / math.sqrt(0.5)))


@pytest.mark.parametrize("shares", [[0.2, 0.5, 0.6, 1.0], [0.05, 0.1, 0.15, 0.9, 1.0], equal(12)])
def test_all_looks_together_decide_wrongly_in_alpha_of_cases(shares):
    steps = np.diff([0.0, *shares])
    rng = np.random.default_rng(1)
    score = np.cumsum(np.sqrt(steps) * rng.standard_normal((40_000, len(shares))), axis=1)
    beyond = np.abs(score / np.sqrt(shares)) > boundaries(0.05, shares)
    low, high = Share(int(beyond.any(axis=1).sum()), len(score)).interval
    assert low <= 0.05 <= high


def test_a_level_of_one_alpha_is_reached_by_that_alpha():
    for shares in ([0.3], [0.25, 0.5, 0.75], equal(10)):
        for alpha in (0.05, 0.05 / 8, 0.2, 1e-4):
            assert level_used(nominal_level(alpha, shares), shares) == pytest.approx(alpha, rel=3e-4)


def test_what_is_used_of_alpha_rises_with_p_and_is_never_under_it():
    shares, ps = [0.2, 0.4, 0.6], np.concatenate([[0.0], np.geomspace(1e-12, 1.0, 60)])
    used = [level_used(float(p), shares) for p in ps]
    assert used == sorted(used)
    assert all(alpha >= p for alpha, p in zip(used, ps, strict=True))
    assert used[-1] == 1.0
    assert level_used(0.3, []) == level_used(0.3, [1.0]) == 0.3


def test_a_look_at_next_to_nothing_decides_next_to_nothing():
    assert nominal_level(0.05, [0.001]) == 0.0
    assert level_used(1e-50, [0.001]) == 1.0
    assert boundaries(0.05, [0.001, 1.0])[1] == pytest.approx(1.96, abs=0.01)


def test_looks_without_end_cost_no_more_than_a_brownian_motion_that_is_watched_all_the_time():
    # the spending function is the chance that its maximum passes z of alpha / 4: 2.2414
    assert 2.15 < boundaries(0.05, equal(60))[-1] < 2.2414


@pytest.mark.parametrize("shares", [[0.0], [0.5, 0.5], [0.6, 0.3], [1.1], [-0.1], [math.nan]])
def test_shares_that_do_not_rise_up_to_1_are_refused(shares):
    with pytest.raises(ValueError, match="must rise, over 0 and up to 1"):
        nominal_level(0.05, shares)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        nominal_level(alpha, [0.5])
