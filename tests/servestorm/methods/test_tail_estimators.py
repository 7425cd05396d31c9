"""The estimates of a p99 that were tried estimate one, and the tries see studies without a true difference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.simulations import tail_estimators as tails
from tests.simulations.recorded_noise import read_recording

ESTIMATES = (tails.nearest, tails.harrell_davis, tails.exponential_tail, tails.pareto_tail)


@pytest.fixture(scope="module")
def latency_ms():
    return tails.latencies(read_recording(), 8)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_estimates_of_exponential_latencies_are_about_their_p99(estimate):
    latency = np.sort(np.random.default_rng(1).exponential(1.0, (400, 1000)))
    assert estimate(latency).mean() == pytest.approx(-math.log(0.01), rel=0.03)


@pytest.mark.parametrize("estimate", [*ESTIMATES, tails.tail_mean])
def test_scaled_latencies_have_the_scaled_figure(estimate, latency_ms):
    assert estimate(3 * latency_ms) == pytest.approx(3 * estimate(latency_ms))


def test_rounds_that_are_drawn_scatter_as_the_recorded_ones(latency_ms):
    drawn = tails.studies(latency_ms, 2000, 7, np.random.default_rng(1))
    logs, recorded = drawn.logs(tails.nearest), np.log(tails.nearest(latency_ms))
    for side in range(2):
        assert logs[:, side].std() == pytest.approx(recorded[:, side].std(), rel=0.1)
    ratio = recorded[:, 1] - recorded[:, 0]
    assert (logs[:, 1] - logs[:, 0]).std() == pytest.approx(ratio.std(), rel=0.1)


def test_one_p99_of_all_rounds_is_that_of_all_their_requests(latency_ms):
    drawn = tails.studies(latency_ms, 5, 7, np.random.default_rng(1))
    value = tails.pooled_jackknife(drawn).value
    whole = [
        [np.quantile(drawn.pooled(study, side), 0.99, method="inverted_cdf") for side in (0, 1)] for study in range(5)
    ]
    ratios = np.log(np.divide(*np.transpose(whole)[::-1]))
    assert value == pytest.approx(ratios - ratios.mean())


def test_a_great_difference_is_found_by_the_share_above_a_common_threshold_and_none_rarely(latency_ms):
    drawn = tails.studies(latency_ms, 100, 7, np.random.default_rng(1))
    assert (tails.exceedance_p(drawn, 0.99, 0.5) < 0.05).mean() > 0.9
    assert (tails.exceedance_p(drawn, 0.99, 0.0) < 0.05).mean() < 0.15
