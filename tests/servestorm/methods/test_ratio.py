"""Ratios of means over runs: worked examples, both designs, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_rel

from servestorm.methods.ratio import effect_of, percent_interval, ratio_interval

A = [10.0, 12.0, 11.0, 15.0]
B = [20.5, 23.0, 22.5, 29.0]
"""Twice A, but for a little: the rounds scatter more than their ratio."""
positive = st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)), min_size=2, max_size=6)


def test_a_paired_ratio_is_that_of_a_worked_example():
    # relative to means of 12 and 23.75: d = 0.0298, -0.0316, 0.0307, -0.0289
    d = [20.5 / 23.75 - 10 / 12, 23 / 23.75 - 1.0, 22.5 / 23.75 - 11 / 12, 29 / 23.75 - 15 / 12]
    effect = effect_of(A, B, paired=True)
    error = np.std(d, ddof=1) / 2
    assert (effect.scale, effect.n_a, effect.df, effect.paired) == ("ratio", 4, 3, True)
    assert effect.estimate == pytest.approx(math.log(23.75 / 12))
    assert effect.error == pytest.approx(error)
    assert effect.p == pytest.approx(2 * student.sf(math.log(23.75 / 12) / error, 3))
    half = student.ppf(0.975, 3) * error
    assert ratio_interval(effect, 0.05) == pytest.approx((23.75 / 12 / math.exp(half), 23.75 / 12 * math.exp(half)))


def test_an_unpaired_ratio_is_that_of_a_worked_example():
    # 4 runs each with means 10 and 12 and relative squared errors 0.0004 and 0.0006
    unit = np.array([-1.5, -0.5, 0.5, 1.5]) / np.std([-1.5, -0.5, 0.5, 1.5], ddof=1)
    effect = effect_of(list(10 * (1 + 0.04 * unit)), list(12 * (1 + math.sqrt(0.0024) * unit)))
    df = 0.001**2 / (0.0004**2 / 3 + 0.0006**2 / 3)
    assert (effect.estimate, effect.error, effect.df) == pytest.approx((math.log(1.2), math.sqrt(0.001), df))
    assert (effect.share, effect.covariance) == pytest.approx((0.4, 0.0))
    half = student.ppf(0.995, df) * math.sqrt(0.001)
    low, high = ratio_interval(effect, 0.01)
    assert (low, high) == pytest.approx((1.2 * math.exp(-half), 1.2 * math.exp(half)))
    assert percent_interval(effect, 0.01) == pytest.approx((100 * (low - 1), 100 * (high - 1)))


def test_what_a_round_does_to_both_sides_cancels_out_of_pairs():
    apart, together = effect_of(A, B), effect_of(A, B, paired=True)
    assert together.estimate == apart.estimate
    assert together.error < apart.error / 4


def test_paired_differences_are_those_of_scipy_where_a_run_is_0():
    a, b = [0.0, 2.0, 1.0, 4.0], [1.0, 4.5, 2.0, 5.0]
    effect, wanted = effect_of(a, b, paired=True), ttest_rel(b, a)
    assert (effect.scale, effect.p, effect.df) == ("difference", pytest.approx(wanted.pvalue), 3)
    assert ratio_interval(effect, 0.05) is None


def test_fiellers_interval_of_pairs_holds_the_ratios_of_which_b_is_not_found_to_differ():
    a, b = np.array([0.0, 8.0, 9.0, 9.5, 8.5, 9.2] * 4), np.array([0.5, 12.0, 12.5, 13.5, 12.2, 13.0] * 4)
    low, high = (1 + end / 100 for end in percent_interval(effect_of(list(a), list(b), paired=True), 0.05))
    for ratio in (low, high):
        assert ttest_rel(b, ratio * a).pvalue == pytest.approx(0.05, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(positive, st.booleans())
def test_a_ratios_interval_holds_it_and_leaves_1_out_exactly_where_p_is_small(pairs, paired):
    effect = effect_of([a for a, _ in pairs], [b for _, b in pairs], paired=paired)
    interval = effect and ratio_interval(effect, 0.05)
    if interval is None or abs(effect.p - 0.05) < 1e-9:
        return
    assert 0 < interval[0] <= effect.mean_b / effect.mean_a * (1 + 1e-12)
    assert effect.mean_b / effect.mean_a <= interval[1] * (1 + 1e-12)
    assert (interval[0] > 1 or interval[1] < 1) == (effect.p < 0.05)


@settings(max_examples=60, deadline=None)
@given(positive, st.booleans())
def test_swapped_sides_have_the_inverse_ratio(pairs, paired):
    a, b = [a for a, _ in pairs], [b for _, b in pairs]
    one, other = effect_of(a, b, paired=paired), effect_of(b, a, paired=paired)
    assert (one is None) == (other is None)
    if one and ratio_interval(one, 0.05) and ratio_interval(other, 0.05):
        low, high = ratio_interval(one, 0.05)
        assert ratio_interval(other, 0.05) == pytest.approx((1 / high, 1 / low), rel=1e-6)


def test_rounds_that_all_differ_alike_cannot_be_judged():
    assert effect_of(A, [2 * value for value in A], paired=True) is None
    assert effect_of(A, [2 * value for value in A]) is not None
    assert effect_of([1.0], [2.0], paired=True) is None
    assert effect_of([1e308, 1.7e308], [1e-320, 2e-320]) is None


def test_sides_of_different_length_are_no_pairs():
    with pytest.raises(ValueError, match="4 and 3 runs are no pairs"):
        effect_of(A, B[:3], paired=True)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("runs", [3, 5, 12])
def test_a_95_percent_interval_holds_the_true_ratio_in_95_of_100_cases(paired, runs):
    rng = np.random.default_rng([7, runs, paired])
    held, studies = 0, 2000
    for _ in range(studies):
        moment = np.exp(0.1 * rng.standard_normal(runs)) if paired else 1.0
        a = 10 * moment * np.exp(0.05 * rng.standard_normal(runs))
        b = 13 * moment * np.exp(0.08 * rng.standard_normal(runs))
        low, high = ratio_interval(effect_of(list(a), list(b), paired=paired), 0.05)
        held += low <= 1.3 * math.exp((0.08**2 - 0.05**2) / 2) <= high
    # binomial: 3 standard errors of 2,000 cases; Welch's degrees of freedom are a little few for three runs
    assert 0.9353 <= held / studies <= (0.9647 if paired or runs > 3 else 0.975)
