"""Statistics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servestorm.methods.percentiles import (
    interval,
    order_interval,
    over_runs,
    percentile,
    percentiles,
    samples_needed,
)
from servestorm.methods.welch import known, welch


def test_a_percentile_is_the_nearest_rank_and_so_a_sample():
    values = list(range(1000, 0, -1))  # 1..1000 in the wrong order
    assert percentile(values, 0.5) == 500
    assert percentile(values, 0.95) == 950
    assert percentile(values, 0.99) == 990


@pytest.mark.parametrize(("q", "needed"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_a_percentile_wants_the_samples_that_mlperf_wants(q, needed):
    assert samples_needed(q) == needed
    assert percentile([1.0] * (needed - 1), q) is None
    assert percentile([1.0] * needed, q) == 1.0


def test_nothing_gives_nothing():
    assert set(percentiles([]).values()) == {None}
    assert over_runs([]).mean is None
    assert over_runs([None, None]).n == 0


def test_deviation_divides_by_one_less_than_the_runs():
    over = over_runs([2.0, 4.0, None, 9.0])
    assert (over.n, over.mean) == (3, 5.0)
    assert over.sd == pytest.approx(((9 + 1 + 16) / 2) ** 0.5)
    assert over_runs([2.0]).sd is None


def test_welch_agrees_with_the_table_of_a_textbook():
    # means 3 and 8, variances 1 and 4 over 3 runs: t = -5 / sqrt(5/3) = -3.873, df = (5/3)^2 / (1/18 + 16/18) = 2.941
    assert welch([2.0, 3.0, 4.0], [6.0, 8.0, 10.0]).p == pytest.approx(0.0316, abs=0.0005)


def test_welch_is_silent_where_runs_are_too_few_or_all_alike():
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch(known([1.0, None]), [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


@given(st.lists(st.floats(0, 1e6), min_size=11, max_size=300))
def test_the_median_has_half_of_the_samples_at_or_under_it(values):
    median = percentile(values, 0.5)
    assert median in values
    assert sum(v <= median for v in values) >= len(values) / 2
    assert sum(v < median for v in values) <= len(values) / 2


def test_an_interval_of_times_is_students_t_of_their_mean_as_a_factor():
    # mean 10 and deviation 1: a relative error of 0.1 / sqrt(3), and t of 2 degrees of freedom is 4.3027
    factor = math.exp(4.302653 * 0.1 / math.sqrt(3))
    assert interval([9.0, None, 10.0, 11.0]) == pytest.approx((10 / factor, 10 * factor), rel=1e-5)


def test_an_interval_with_a_zero_in_it_is_plain_and_ends_where_values_do():
    # 0, 1 and 2 %: mean 1, deviation 1, half a width of 2.484
    assert interval([0.0, 1.0, 2.0]) == pytest.approx((0.0, 3.484), abs=0.001)
    assert interval([0.0, 50.0, 100.0], most=100.0) == (0.0, 100.0)
    assert interval([-1.0, 0.0, 1.0]) == pytest.approx((-2.484, 2.484), abs=0.001)


def test_there_is_no_interval_of_one_run_of_runs_all_alike_or_beyond_all_numbers():
    assert interval([5.0]) is None
    assert interval([5.0, None]) is None
    assert interval([5.0, 5.0, 5.0]) is None
    assert interval([1e-300, 1e308]) is None


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=8))
def test_an_interval_of_times_is_over_0_and_holds_the_mean_beside_which_it_stands(runs):
    found = interval(runs)
    if found:
        assert 0 <= found[0] <= np.mean(runs) * (1 + 1e-9)
        assert found[1] >= np.mean(runs) * (1 - 1e-9)
        assert found[0] * found[1] == pytest.approx(np.mean(runs) ** 2, rel=1e-6)


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_an_interval_over_runs_holds_the_true_mean_in_95_of_100_studies(runs):
    random = np.random.default_rng(1)
    mean, scatter = 10.0, 0.2  # of logarithms
    studies = random.lognormal(math.log(mean) - scatter**2 / 2, scatter, (4000, runs)).tolist()
    found = [interval(study) for study in studies]
    assert 0.935 < np.mean([low <= mean <= high for low, high in found]) < 0.965


def test_an_interval_of_a_percentile_lies_between_the_samples_that_the_binomial_distribution_names():
    # Le Boudec's table for the median of 100: the 40th and the 61st
    assert order_interval(np.arange(1.0, 101.0), 0.5) == (40.0, 61.0)
    # p99 of 662: under the 650th with 1.9 %, from the 661st on with 1.0 %
    low, high = order_interval(np.arange(1.0, 663.0), 0.99)
    assert low < 656 < high <= 662


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_where_a_percentile_may_be_quoted_its_samples_have_an_interval(q):
    needed = samples_needed(q)
    assert order_interval(np.arange(float(needed)), q) is not None
    assert order_interval(np.arange(float(needed - 1)), q) is None


def test_an_interval_of_a_percentile_holds_the_true_one_in_95_of_100_loads():
    random = np.random.default_rng(2)
    true = -math.log(0.1)  # p90 of exponential latencies
    found = [order_interval(np.sort(random.exponential(1.0, 500)), 0.9) for _ in range(2000)]
    assert 0.94 < np.mean([low <= true <= high for low, high in found]) < 0.975
