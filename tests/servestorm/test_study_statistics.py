"""Statistics against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servestorm.statistics import over_runs, percentile, percentiles, samples_needed, welch_p


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
    p = welch_p([2.0, 3.0, 4.0], [6.0, 8.0, 10.0])
    assert p == pytest.approx(0.0316, abs=0.0005)


def test_welch_is_silent_where_runs_are_too_few_or_all_alike():
    assert welch_p([1.0], [2.0, 3.0]) is None
    assert welch_p([1.0, None], [2.0, 3.0]) is None
    assert welch_p([1.0, 1.0], [2.0, 2.0]) is None


@given(st.lists(st.floats(0, 1e6), min_size=11, max_size=300))
def test_the_median_has_half_of_the_samples_at_or_under_it(values):
    median = percentile(values, 0.5)
    assert median in values
    assert sum(v <= median for v in values) >= len(values) / 2
    assert sum(v < median for v in values) <= len(values) / 2
