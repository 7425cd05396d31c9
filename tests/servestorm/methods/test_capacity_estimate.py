"""Where p99 meets the objective: against exact lines, an independent fit, and queues whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from servestorm.methods.capacity_estimate import FIELLER, crossing
from servestorm.methods.capacity_search import Probe
from tests.simulations import capacity_searches, md1


def probes(places, verdict="pass"):
    return [Probe(rate, verdict, "", p99_ms, 0.0) for rate, p99_ms in places]


def on_the_line(rates, top=200.0):
    """p99 of 1 / (1 - utilisation), 10 ms when idle: it meets 50 ms at 0.8 of the top."""
    return [(rate, 10 / (1 - rate / top)) for rate in rates]


def test_probes_on_the_line_give_its_crossing_exactly():
    found = crossing(probes(on_the_line([130, 150, 170])), 50)
    assert (found.rate_per_s, found.low, found.high) == pytest.approx((160, 160, 160))
    assert found.probes == 3


def test_the_interval_ends_where_an_independent_fit_is_just_unsure():
    noisy = [
        (r, p99 * f)
        for (r, p99), f in zip(on_the_line([120, 135, 150, 160, 170]), [1.1, 0.9, 1.05, 0.97, 1.02], strict=True)
    ]
    found = crossing(probes(noisy), 50)
    rates, ratios = np.array(noisy).T[0], np.array(noisy).T[1] / 50
    line, doubt = optimize.curve_fit(
        lambda x, a, b: a + b * x, rates, 1 - 1 / ratios, p0=(0, 0), sigma=ratios**-0.5, absolute_sigma=False
    )
    at = np.array([[1, found.rate_per_s], [1, found.low], [1, found.high]])
    unsure = np.sqrt(np.einsum("ij,jk,ik->i", at, doubt, at))
    t = stats.t.ppf((1 + FIELLER) / 2, 3)
    assert at @ line / unsure == pytest.approx([0, -t, t], abs=1e-4)
    assert found.low < found.rate_per_s < found.high


def test_what_the_generator_spoilt_or_lies_far_off_changes_nothing():
    near = probes(on_the_line([130, 150, 170]))
    spoilt = probes([(150, 90.0)], "invalid")
    far = probes([(10, 2.0), (190, 5000.0), (160, None)], "fail")
    assert crossing([*spoilt, *near, *far], 50) == crossing(near, 50)


@pytest.mark.parametrize(
    "places",
    [
        on_the_line([150, 170]),
        on_the_line([130, 140, 150]),
        on_the_line([165, 170, 175]),
        [(150, 40.0), (150, 60.0), (150, 50.0)],
        [(130, 90.0), (150, 50.0), (170, 30.0)],
        [(130, 60.0), (150, 30.0), (170, 62.0)],
        [(125, 14.0), (155, 26.0), (165, 35.0), (175, 47.0)],
    ],
    ids=["two", "all under", "all over", "one rate", "falling", "flat", "all just under"],
)
def test_probes_that_do_not_tell_give_no_number(places):
    assert crossing(probes(places), 50) is None


@pytest.mark.parametrize(
    "places",
    [[(140, 28.0), (155, 30.0), (165, 37.0), (195, 72.0)], [(107, 76.7), (76, 22.7), (90, 17.3), (107, 41.8)]],
    ids=["an interval that is too wide", "a slope that may be nought"],
)
def test_probes_that_scatter_give_a_rate_for_comparisons_and_no_interval(places):
    found = crossing(probes(places), 50)
    rates, ratios = np.array(places).T[0], np.array(places).T[1] / 50
    slope, start = np.polyfit(rates, 1 - 1 / ratios, 1, w=np.sqrt(ratios))
    assert found.rate_per_s == pytest.approx(-start / slope)
    assert (found.low, found.high, found.interval) == (None, None, None)


def test_estimates_of_noisy_searches_scatter_about_the_truth_and_their_ratios_hold_it():
    """Probes of 9 s, most of whose searches have no interval of their own: five rounds of one server against itself."""
    true = md1.capacity_per_s(7, 50)
    rates = []
    for seed in range(60):
        found = capacity_searches.find(
            capacity_searches.simulated(7, 9, seed), 50, 0.05, true * (0.6 + 0.1 * (seed % 7))
        )
        if (met := crossing(found.probes, 50)) is not None:
            rates.append(met.rate_per_s)
    assert len(rates) >= 50
    assert abs(np.mean(rates) / true - 1) < 0.05
    logs = np.log(rates[:50]).reshape(5, 2, 5)
    held = 0
    for first, second in logs:
        difference = first - second
        held += abs(difference.mean()) <= stats.t.ppf(0.975, 4) * stats.sem(difference)
    assert held >= 4


def test_of_queues_whose_law_is_known_it_finds_the_capacity_and_the_interval_holds_it():
    told, errors, held = 0, [], 0
    for objective_ms in (10, 20, 40):
        true = md1.capacity_per_s(2, objective_ms)
        for seed in range(20):
            found = capacity_searches.find(capacity_searches.simulated(2, 20, seed), objective_ms, 0.03, 170)
            if (met := crossing(found.probes, objective_ms)) is not None:
                told += 1
                errors.append(met.rate_per_s / true - 1)
                held += met.interval is not None and met.low <= true <= met.high
    assert told >= 54  # of 60
    assert np.mean(np.abs(errors) <= 0.05) >= 0.95
    assert held / told >= 0.9
