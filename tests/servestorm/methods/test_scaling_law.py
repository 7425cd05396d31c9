"""The scalability law, speed-up and efficiency against fleets whose parameters are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from servestorm.methods.scaling_law import fit_usl, steps
from tests.simulations import scaling as simulation


def law(n, lambda_, sigma, kappa):
    return lambda_ * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


@settings(max_examples=100, deadline=None)
@given(lambda_=st.floats(0.01, 1e5), sigma=st.floats(0, 0.9), kappa=st.floats(0, 0.2), most=st.integers(3, 32))
def test_exact_throughputs_give_back_the_parameters(lambda_, sigma, kappa, most):
    counts = range(1, most + 1)
    fitted = fit_usl(counts, [law(n, lambda_, sigma, kappa) for n in counts])
    assert fitted.lambda_ == pytest.approx(lambda_, rel=1e-4)
    assert fitted.sigma == pytest.approx(sigma, abs=1e-4)
    assert fitted.kappa == pytest.approx(kappa, abs=1e-4)
    assert fitted.predicted(most) == pytest.approx(law(most, lambda_, sigma, kappa), rel=1e-4)


def test_the_peak_is_where_the_law_turns_down():
    counts = [1, 2, 4, 8, 16]
    fitted = fit_usl(counts, [law(n, 100, 0.05, 0.01) for n in counts])
    assert fitted.peak_replicas == pytest.approx(math.sqrt(0.95 / 0.01), rel=1e-6)
    assert fitted.predicted(fitted.peak_replicas) > fitted.predicted(fitted.peak_replicas + 1)
    assert fitted.r2 == pytest.approx(1)


def test_a_fleet_that_scales_perfectly_has_neither_loss_nor_peak():
    fitted = fit_usl([1, 2, 3, 4], [100, 200, 300, 400])
    assert (fitted.sigma, fitted.kappa, fitted.peak_replicas) == (0, 0, None)


def test_a_fleet_that_only_waits_in_line_has_no_peak():
    for sigma in (0.03, 0.1, 0.37):
        fitted = fit_usl([1, 2, 4, 8] * 2, [law(n, 100, sigma, 0) * (1 + 1e-6 * n) for n in [1, 2, 4, 8] * 2])
        assert (fitted.kappa, fitted.peak_replicas) == (0, None)


def test_no_parameters_near_those_found_have_smaller_relative_errors():
    counts, found = [1, 2, 4, 8, 16], [100.0, 190.0, 300.0, 420.0, 390.0]

    def error(lambda_, sigma, kappa):
        return sum((law(n, lambda_, sigma, kappa) / x - 1) ** 2 for n, x in zip(counts, found, strict=True))

    fitted = fit_usl(counts, found)
    best = (fitted.lambda_, fitted.sigma, fitted.kappa)
    for at in range(3):
        for factor in (0.995, 1.005):
            near = [value * factor if i == at else value for i, value in enumerate(best)]
            assert error(*near) > error(*best)


def test_a_fleet_that_does_better_than_linear_gets_no_negative_loss():
    fitted = fit_usl([1, 2, 4], [100, 220, 480])
    assert fitted.sigma >= 0
    assert fitted.kappa >= 0


def test_a_fleet_that_only_gets_slower_peaks_at_one_replica():
    assert fit_usl([1, 2, 3], [100, 60, 40]).peak_replicas == 1


def test_two_counts_are_too_few_however_often_they_were_run_and_missing_runs_do_not_count():
    assert fit_usl([1, 1, 2, 2], [100, 101, 190, 191]) is None
    assert fit_usl([1, 2, 4, 4], [100, 190, None, 0.0]) is None
    assert fit_usl([], []) is None


def test_equal_throughputs_have_no_variance_to_explain():
    assert fit_usl([1, 2, 3], [100, 100, 100]).r2 is None


def test_the_curve_runs_from_one_replica_to_the_most():
    curve = fit_usl([1, 2, 4], [100, 180, 300]).curve(8, points=15)
    assert (curve[0][0], curve[-1][0], len(curve)) == (1, 8, 15)
    assert curve[0][1] == pytest.approx(100, rel=1e-6)


def test_speed_up_and_efficiency_are_against_the_fewest_replicas():
    found = steps([2, 2, 4, 4], [100, 100, 160, 160])
    assert [s.replicas for s in found] == [2, 4]
    assert [s.speedup for s in found] == pytest.approx([1, 1.6])
    assert [s.efficiency for s in found] == pytest.approx([1, 0.8])
    assert found[0].speedup_ci is None
    assert found[1].speedup_ci is None  # runs that do not scatter say nothing of their scatter


def test_the_interval_is_welchs_of_the_logarithms():
    # logs 0, 0.1, 0.2 against 0.6, 1.0, 1.4: means 0.9 apart, variances of the means 0.01 / 3 and 0.16 / 3
    found = steps([1] * 3 + [2] * 3, np.exp([0, 0.1, 0.2, 0.6, 1.0, 1.4]).tolist())[1]
    freedom = (0.17 / 3) ** 2 / ((0.01 / 3) ** 2 / 2 + (0.16 / 3) ** 2 / 2)
    half = float(t.ppf(0.975, freedom)) * math.sqrt(0.17 / 3)
    low, high = math.exp(0.9 - half), math.exp(0.9 + half)
    assert found.speedup == pytest.approx(math.exp(0.9))
    assert found.speedup_ci == pytest.approx((low, high))
    assert found.efficiency_ci == pytest.approx((low / 2, high / 2))


def test_one_run_a_count_has_a_speed_up_and_no_interval():
    found = steps([1, 2], [100, 150])[1]
    assert (found.speedup, found.speedup_ci, found.efficiency_ci) == (pytest.approx(1.5), None, None)


def test_missing_runs_are_left_out_and_nothing_gives_nothing():
    assert [s.runs for s in steps([1, 1, 2], [100, None, 0.0])] == [(100.0,)]
    assert steps([1], [None]) == []


@pytest.mark.parametrize(("sigma", "kappa"), [(0.02, 0.0), (0.1, 0.002), (0.3, 0.01)])
def test_a_simulated_fleet_gives_back_its_programmed_parameters(sigma, kappa):
    fitted = fit_usl(*simulation.study(sigma, kappa, np.random.default_rng(11)))
    assert fitted.sigma == pytest.approx(sigma, abs=0.02)
    assert fitted.kappa == pytest.approx(kappa, abs=0.002)
