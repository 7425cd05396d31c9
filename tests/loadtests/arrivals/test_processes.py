"""Arrival processes: rates, variability, determinism, dealing over workers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.arrivals import processes
from loadtests.arrivals.options import PROCESSES
from loadtests.arrivals.table import ARRIVALS
from loadtests.errors import LoadTestError

MAKERS = {
    "constant": lambda rate, seconds, seed: processes.constant(rate, seconds),
    "poisson": processes.poisson,
    "gamma": lambda rate, seconds, seed: processes.gamma(rate, 3.0, seconds, seed),
    "on_off": lambda rate, seconds, seed: processes.on_off(rate, 4 * rate, 1.0, 2.0, seconds, seed),
    "mmpp": lambda rate, seconds, seed: processes.mmpp([rate, 5 * rate], [2.0, 0.5], seconds, seed),
    "spike": lambda rate, seconds, seed: processes.spike(rate, 4 * rate, seconds / 2, 1.0, seconds, seed),
    "ramp": lambda rate, seconds, seed: processes.ramp(rate, 3 * rate, seconds, seed),
    "diurnal": lambda rate, seconds, seed: processes.diurnal(rate, 0.8, 10.0, seconds, seed),
}


@pytest.mark.parametrize("name", MAKERS)
@given(rate=st.floats(1, 500), seconds=st.floats(1, 20), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_every_schedule_is_sorted_int64_within_its_duration_and_repeatable(name, rate, seconds, seed):
    schedule = MAKERS[name](rate, seconds, seed)
    assert schedule.dtype == np.int64
    assert (np.diff(schedule) >= 0).all()
    assert ((schedule >= 0) & (schedule < seconds * 1e9)).all()
    assert schedule.tobytes() == MAKERS[name](rate, seconds, seed).tobytes()


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "constant"])
def test_another_seed_gives_another_schedule(name):
    assert MAKERS[name](100, 10, 1).tobytes() != MAKERS[name](100, 10, 2).tobytes()


@pytest.mark.parametrize(
    ("make", "seconds", "rate"),
    [
        (lambda s: processes.constant(200, s), 500, 200),
        (lambda s: processes.poisson(200, s, 1), 500, 200),
        (lambda s: processes.gamma(200, 3.0, s, 1), 500, 200),
        (lambda s: processes.on_off(100, 400, 1, 2, s, 1), 600, 200),
        (lambda s: processes.mmpp([50, 500], [3.0, 1.0], s, 1), 5000, (50 * 3 + 500) / 4),
        (lambda s: processes.spike(100, 1100, 100, 50, s, 1), 500, 200),
        (lambda s: processes.ramp(100, 300, s, 1), 500, 200),
        (lambda s: processes.diurnal(200, 0.8, 60, s, 1), 600, 200),
    ],
)
def test_the_mean_rate_is_what_the_parameters_say(make, seconds, rate):
    assert len(make(seconds)) / seconds == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize(("cv", "tolerance"), [(0.5, 0.02), (1.0, 0.03), (3.0, 0.15)])
def test_gamma_gaps_have_the_coefficient_of_variation_asked_for(cv, tolerance):
    gaps = np.diff(processes.gamma(1000, cv, 200, 7))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=tolerance)


def test_poisson_has_dispersion_one_and_constant_has_none():
    poisson = processes.statistics_of(processes.poisson(500, 1000, 3), 1000)
    constant = processes.statistics_of(processes.constant(500, 1000), 1000)
    assert poisson.cv == pytest.approx(1, abs=0.02)
    assert poisson.dispersion == pytest.approx(1, abs=0.15)
    assert constant.cv == pytest.approx(0, abs=1e-6)
    assert constant.dispersion == pytest.approx(0, abs=1e-9)


def test_bursts_are_more_dispersed_than_poisson():
    bursty = processes.statistics_of(processes.on_off(10, 400, 2, 8, 1000, 3), 1000)
    assert bursty.dispersion > 50
    assert bursty.peak_to_mean > 3


def test_on_off_keeps_the_two_rates_in_their_phases():
    schedule = processes.on_off(20, 200, 2, 3, 500, 5)
    phase = schedule % 5_000_000_000
    assert (phase < 3_000_000_000).sum() / 300 == pytest.approx(20, rel=0.05)
    assert (phase >= 3_000_000_000).sum() / 200 == pytest.approx(200, rel=0.05)


def test_a_silent_base_sends_nothing_between_the_bursts():
    schedule = processes.on_off(0, 100, 1, 1, 100, 5)
    assert (schedule % 2_000_000_000 >= 1_000_000_000).all()


@given(count=st.integers(0, 200), workers=st.integers(1, 12))
def test_dealing_over_workers_loses_and_doubles_nothing(count, workers):
    schedule = np.arange(count, dtype=np.int64) * 1000
    dealt = [processes.deal(schedule, worker, workers) for worker in range(workers)]
    assert sorted(np.concatenate(dealt).tolist()) == schedule.tolist()
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_statistics_of_too_few_arrivals_are_missing_rather_than_zero():
    nothing = processes.statistics_of(np.empty(0, np.int64), 1.0)
    assert (nothing.arrivals, nothing.cv, nothing.dispersion, nothing.peak_to_mean) == (0, None, None, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: processes.constant(0, 10),
        lambda: processes.constant(-1, 10),
        lambda: processes.poisson(float("nan"), 10, 0),
        lambda: processes.poisson(10, 0, 0),
        lambda: processes.constant(1e9, 10),
        lambda: processes.gamma(10, 0, 10, 0),
        lambda: processes.on_off(-1, 10, 1, 1, 10, 0),
        lambda: processes.on_off(1, 10, 0, 1, 10, 0),
        lambda: processes.mmpp([1.0], [1.0], 10, 0),
        lambda: processes.mmpp([1.0, 2.0], [1.0], 10, 0),
        lambda: processes.mmpp([1.0, 2.0], [1.0, 0.0], 10, 0),
        lambda: processes.spike(1, 10, 20, 1, 10, 0),
        lambda: processes.ramp(-1, 10, 10, 0),
        lambda: processes.diurnal(10, 1.5, 10, 10, 0),
        lambda: processes.deal(np.empty(0, np.int64), 3, 3),
    ],
)
def test_a_load_that_cannot_be_made_is_refused_in_one_sentence(make):
    with pytest.raises(LoadTestError, match=r"^[^\n]+\.$"):
        make()


def test_every_process_that_the_command_line_offers_is_in_the_table():
    assert tuple(ARRIVALS) == PROCESSES
