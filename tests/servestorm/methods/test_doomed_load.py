"""A probe is given up only where it was to fail anyway: on simulated queues, whatever their discipline."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.arrivals.processes import poisson
from servestorm.methods.capacity_estimate import NEAR
from servestorm.methods.capacity_search import SearchObjective
from servestorm.methods.doomed_load import doomed_in_flight
from tests.simulations import md1

SERVICE_MS = 8.0
DURATION_S, WARMUP_S = 20.0, 1.0
MOST = 10**6


def load(rate_per_s, seed, pause_s=0.0, last_first=False):
    """Scheduled and done seconds of a queue's requests from the warm-up's begin on, the server idle for a while."""
    scheduled = np.sort(poisson(rate_per_s, DURATION_S + WARMUP_S, seed).whole() / 1e9)
    if not last_first:
        ready = np.maximum(scheduled, pause_s)
        return scheduled, ready + md1.simulated_ms(ready, SERVICE_MS) / 1000
    done, waiting, now, place = np.empty_like(scheduled), [], pause_s, 0
    while place < scheduled.size or waiting:
        if not waiting:
            now = max(now, scheduled[place])
        while place < scheduled.size and scheduled[place] <= now:
            waiting.append(place)
            place += 1
        now += SERVICE_MS / 1000
        done[waiting.pop()] = now
    return scheduled, done


def most_in_flight(scheduled, done):
    """The largest number in flight, the moment included at which a request is sent."""
    return int((np.arange(1, scheduled.size + 1) - np.searchsorted(np.sort(done), scheduled)).max())


def p99_ms(scheduled, done):
    measured = scheduled >= WARMUP_S
    return 1000 * np.quantile((done - scheduled)[measured], 0.99, method="inverted_cdf")


def is_doomed(scheduled, done, rate_per_s, objective_ms):
    limit = doomed_in_flight(rate_per_s, DURATION_S, WARMUP_S, SearchObjective(objective_ms, 0.1), MOST)
    return most_in_flight(scheduled, done) >= limit


@pytest.mark.parametrize("last_first", [False, True], ids=["first come first served", "last come first served"])
@pytest.mark.parametrize("objective_ms", [40.0, 160.0])
def test_no_probe_is_given_up_that_would_have_passed_or_told_where_the_capacity_is(objective_ms, last_first):
    given_up = 0
    for rate_per_s in (60.0, 110.0, 124.0, 130.0, 160.0, 400.0):
        for seed in range(10):
            for pause_s in (0.0, 0.9, 1.5):
                times = load(rate_per_s, seed, pause_s, last_first)
                if is_doomed(*times, rate_per_s, objective_ms):
                    given_up += 1
                    assert p99_ms(*times) > NEAR * objective_ms
    assert given_up >= 30


def test_far_over_the_capacity_most_of_the_probe_is_saved():
    scheduled, done = load(400.0, 1)
    limit = doomed_in_flight(400.0, DURATION_S, WARMUP_S, SearchObjective(40.0, 0.1), MOST)
    in_flight = np.arange(1, scheduled.size + 1) - np.searchsorted(np.sort(done), scheduled)
    assert scheduled[np.argmax(in_flight >= limit)] < 0.2 * (DURATION_S + WARMUP_S)


def test_a_server_that_hangs_through_its_warm_up_alone_is_not_given_up():
    scheduled, done = load(20.0, 1, pause_s=0.95)
    assert p99_ms(scheduled, done) < 100
    assert not is_doomed(scheduled, done, 20.0, 100.0)


def test_a_probe_that_fails_and_whose_p99_still_tells_the_capacity_is_not_given_up():
    # 131/s at a server of 125/s: a queue that grows until the last answer takes 3 s
    scheduled_s = poisson(131.0, 60.0, 1).whole() / 1e9
    done_s = scheduled_s + md1.simulated_ms(scheduled_s, SERVICE_MS) / 1000
    assert 1000 < 1000 * np.quantile(done_s - scheduled_s, 0.99) < NEAR * 1000
    limit = doomed_in_flight(131.0, 60.0, 0.0, SearchObjective(1000.0, 0.1), MOST)
    assert most_in_flight(scheduled_s, done_s) < limit


def test_the_limit_grows_with_all_that_may_be_in_flight_without_harm():
    objective = SearchObjective(50.0, 0.1)
    limit = doomed_in_flight(100.0, 20.0, 1.0, objective, MOST)
    assert limit > 100 * (0.2 + 1.0 + 0.011 * 20)
    assert limit < doomed_in_flight(100.0, 40.0, 1.0, objective, MOST)
    assert limit < doomed_in_flight(100.0, 20.0, 2.0, objective, MOST)
    assert limit < doomed_in_flight(100.0, 20.0, 1.0, SearchObjective(100.0, 0.1), MOST)
    assert limit < doomed_in_flight(100.0, 20.0, 1.0, SearchObjective(50.0, 1.0), MOST)
    assert limit < doomed_in_flight(120.0, 20.0, 1.0, objective, MOST)


def test_where_the_generator_allows_fewer_the_load_is_given_up_there_unless_the_warm_up_may_bring_them_about():
    objective = SearchObjective(50.0, 0.1)
    assert doomed_in_flight(100.0, 20.0, 1.0, objective, 200) == 200
    assert doomed_in_flight(100.0, 20.0, 1.0, objective, 150) is None
