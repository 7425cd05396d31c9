"""From which request on latencies are steady: known changes, known noise, and what never settles."""

from __future__ import annotations

import numpy as np
import pytest

from servestorm.methods.steady_point import steady_from


def noisy(level_ms, count, seed=1, share=0.08):
    """Latencies as servers have them: log-normal around a level, now and then one that is slow."""
    random = np.random.default_rng(seed)
    values = level_ms * np.exp(random.normal(0, share, count))
    values[random.random(count) < 0.02] *= 5
    return values


def test_constant_latencies_are_steady_from_the_first_request():
    assert steady_from([2.0] * 100) == 0


@pytest.mark.parametrize("cold", [1, 2, 5, 30, 120])
def test_a_step_down_is_found_at_the_very_request(cold):
    assert steady_from([9.0] * cold + [2.0] * 180) == cold


@pytest.mark.parametrize("seed", range(20))
def test_a_step_under_noise_is_found_within_a_window(seed):
    values = np.concatenate([noisy(8, 50, seed), noisy(2, 250, seed + 100)])
    assert steady_from(values) == pytest.approx(50, abs=11)


def test_noise_alone_is_steady_within_the_first_window_in_99_of_100_series():
    found = [steady_from(noisy(3, 300, seed)) for seed in range(200)]
    assert sum(index is None or index > 11 for index in found) <= 2


def test_an_exponential_warm_up_ends_where_it_is_within_a_tenth_of_the_level():
    requests = np.arange(300)
    values = 2 + 8 * np.exp(-requests / 20)
    found = steady_from(values)
    # 8 exp(-n / 20) falls under a tenth of 2 ms at n = 20 ln 40 = 73.8
    assert found == pytest.approx(73.8, abs=11)


def test_a_lull_in_a_warm_up_does_not_pass_for_its_end():
    assert steady_from([9.0] * 20 + [2.0] * 30 + [9.0] * 20 + [2.0] * 200) == 70


def test_single_slow_requests_later_do_not_undo_it():
    values = np.full(200, 2.0)
    values[[60, 90, 150, 199]] = 50
    assert steady_from(values) == 0


def test_a_busy_machine_that_delays_two_requests_of_three_for_a_while_does_not_hide_it():
    values = noisy(2, 300)
    for begin in (90, 150, 230):
        values[begin : begin + 30][np.arange(30) % 3 > 0] += 4
    assert steady_from(np.concatenate([np.full(40, 8.0), values])) == pytest.approx(40, abs=11)


def test_latencies_that_become_slower_are_steady_once_they_stay():
    assert steady_from([2.0] * 50 + [4.0] * 200) == pytest.approx(50, abs=6)


def test_latencies_that_keep_falling_never_settle():
    assert steady_from(np.linspace(20, 2, 300)) is None


def test_latencies_that_change_at_the_end_never_settle():
    assert steady_from([2.0] * 180 + [6.0] * 20) is None


def test_too_few_requests_tell_nothing():
    assert steady_from([2.0] * 39) is None
    assert steady_from([]) is None


def test_a_failed_request_is_refused_instead_of_counted():
    with pytest.raises(ValueError, match="leave out"):
        steady_from([1.0] * 50 + [float("nan")])
