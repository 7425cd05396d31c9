"""What may be promised of a percentile, against MLPerf's published runs and distributions whose percentile is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from servestorm.methods.percentile_claim import allowed_above, percentile_claim
from tests.simulations import md1


@pytest.mark.parametrize(
    ("count", "q", "discarded"),
    [(64, 0.90, 0), (708, 0.90, 51), (2048, 0.90, 172), (79944, 0.90, 7796), (662, 0.99, 0)],
)
def test_it_allows_as_many_samples_above_as_loadgens_printed_single_stream_results(count, q, discarded):
    """LoadGen keeps the sample in question among those above, so it discards one fewer."""
    assert allowed_above(count, q) == discarded + 1


@pytest.mark.parametrize(("needed", "over"), [(459, 0), (662, 1), (12571, 100)])
def test_a_run_is_successful_from_as_many_queries_on_as_loadgens_server_scenario_asks_for(needed, over):
    """Of its printed 'would need to run at least N more queries': 21 + 438, 300 + 159 and 100 + 12471."""
    assert allowed_above(needed, 0.99) == over
    assert (allowed_above(needed - 1, 0.99) or 0) == max(over - 1, 0)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99, 0.999])
def test_one_sample_more_above_it_would_be_too_many(q):
    for count in (10_000, 33_333):
        allowed = allowed_above(count, q)
        assert binom.cdf(allowed, count, 1 - q) <= 0.01 < binom.cdf(allowed + 1, count, 1 - q)


def test_too_few_samples_give_no_claim():
    assert percentile_claim([], 0.99) is None
    assert percentile_claim(np.ones(458), 0.99) is None
    assert percentile_claim(np.arange(459.0)[::-1], 0.99) == 458


def test_it_is_the_sample_with_the_allowed_number_above_it_in_whatever_order():
    values = np.random.default_rng(1).permutation(np.arange(2000.0))
    assert percentile_claim(values, 0.99) == 2000 - 1 - allowed_above(2000, 0.99)


def test_in_99_of_100_loads_the_true_percentile_is_at_most_the_claim_and_in_half_at_most_the_sample_percentile():
    draws = np.random.default_rng(2).exponential(size=(4000, 1500))
    true = -np.log(0.01)
    held = np.mean([percentile_claim(row, 0.99) >= true for row in draws])
    assert 0.985 <= held <= 1
    assert 0.4 < np.mean(np.sort(draws, axis=1)[:, 1484] >= true) < 0.6


def test_in_a_queue_that_delays_neighbours_together_it_holds_less_often_as_the_docstring_warns():
    rate, service_ms = 400.0, 2.0  # a utilisation of 0.8
    generator = np.random.default_rng(3)
    true = md1.quantile_ms(rate, service_ms)
    claims = [percentile_claim(_latencies_ms(generator, rate, service_ms, 8_000), 0.99) for _ in range(200)]
    assert 0.75 < np.mean(np.array(claims) >= true) < 0.99


def _latencies_ms(generator, rate, service_ms, count):
    return md1.simulated_ms(np.cumsum(generator.exponential(1 / rate, count)), service_ms)
