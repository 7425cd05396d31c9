"""What may be promised of a percentile, against MLPerf's published runs and distributions whose percentile is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from servestorm.methods.percentile_claim import allowed_above, bunching, percentile_claim
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


def test_values_that_have_nothing_to_do_with_their_neighbours_lose_little_by_slices():
    draws = np.random.default_rng(4).exponential(size=(400, 3000))
    batches = np.arange(3000) // 100
    factors = [bunching(row, 0.99, batches) for row in draws]
    assert 1 <= np.mean(factors) < 1.25
    assert all(percentile_claim(row, 0.99, batches) >= percentile_claim(row, 0.99) for row in draws[:100])


def test_values_that_come_in_bunches_count_as_so_many_fewer():
    fine, slow = np.zeros(3000), np.full(10, 5.0)
    fine[1000:1010] = fine[2000:2010] = fine[2400:2410] = slow
    spread = np.zeros(3000)
    spread[::100] = 5.0
    batches = np.arange(3000) // 100
    assert bunching(spread, 0.99, batches) == 1
    assert bunching(fine + np.arange(3000) * 1e-9, 0.99, batches) > 8


@pytest.mark.parametrize("rate", [250.0, 350.0])
def test_in_a_queue_that_delays_neighbours_together_the_claim_holds_and_loadgens_does_not(rate):
    service_ms, true = 2.0, md1.quantile_ms(rate, 2.0)
    generator = np.random.default_rng(3)
    plain, batched = [], []
    for _ in range(150):
        arrivals_s = np.cumsum(generator.exponential(1 / rate, int(60 * rate)))
        latency_ms = md1.simulated_ms(arrivals_s, service_ms)
        slices = arrivals_s.astype(np.int64)
        plain.append(percentile_claim(latency_ms, 0.99))
        batched.append(percentile_claim(latency_ms, 0.99, slices) or np.inf)
    assert np.mean(np.array(plain) >= true) < 0.9
    assert np.mean(np.array(batched) >= true) > 0.93
    assert np.median(batched) < 1.35 * true
