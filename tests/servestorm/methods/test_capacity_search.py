"""The capacity search against servers that are exact, noisy or broken, or too fast for the generator."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.arrivals.processes import poisson
from servestorm.methods.capacity_estimate import crossing
from servestorm.methods.capacity_search import Probe, Search, SearchObjective
from servestorm.methods.probe_verdict import error_percent, judge, probe_of
from servestorm.rundir.shapes.cell import FinishedLoadFile
from tests.simulations import capacity_searches, md1

OBJECTIVE = SearchObjective(p99_ms=50.0, max_error_percent=0.5)


def probe(rate, verdict, reason="p99 61 ms is over the objective of 50 ms"):
    return Probe(rate, verdict, reason, None, None)


def searched(answer, start=100.0, **options):
    """The search after `answer(rate, number)` has told it every verdict."""
    search = Search(start, **options)
    for number in itertools.count():
        rate = search.next_rate()
        if rate is None:
            return search.result()
        search.record(probe(rate, answer(rate, number)))


def up_to(capacity):
    return lambda rate, _number: "pass" if rate <= capacity else "fail"


def rates(found):
    return [probe.rate_per_s for probe in found.probes]


@pytest.mark.parametrize("capacity", [7.3, 37, 99, 100, 101, 260, 1234])
def test_an_exact_server_is_found_within_the_tolerance_and_confirmed(capacity):
    found = searched(up_to(capacity))
    assert found.confirmed
    assert capacity / 1.031 <= found.rate_per_s <= capacity < found.high
    assert found.low == found.rate_per_s
    assert len(found.probes) <= 12
    assert [p.confirms for p in found.probes if p.rate_per_s == found.rate_per_s] == [False, True]


def test_it_doubles_then_bisects_geometrically_then_repeats():
    found = searched(up_to(300), tolerance=0.05)
    assert rates(found) == [100, 200, 400, 282.8, 336.3, 308.4, 295.3, 295.3]


def test_it_halves_where_the_start_is_too_high():
    assert rates(searched(up_to(30)))[:4] == [100, 50, 25, 35.36]


def test_asking_for_the_next_rate_twice_changes_nothing_and_another_rate_is_refused():
    search = Search(100)
    assert search.next_rate() == search.next_rate() == 100
    with pytest.raises(ValueError, match="asked for 100"):
        search.record(probe(120, "pass"))


def test_a_start_that_is_far_too_low_costs_precision_and_still_ends_in_time():
    found = searched(up_to(3100))
    assert found.confirmed
    assert 3100 / 1.1 <= found.rate_per_s <= 3100
    assert len(found.probes) <= 12


def test_a_failed_confirmation_steps_down_by_the_tolerance_until_a_rate_passes_twice():
    verdicts = iter(["pass", "fail", "fail", "fail", "pass", "fail", "fail", "pass", "pass"])
    found = searched(lambda *_: next(verdicts), tolerance=0.05)
    # 109 passed and failed its repeat; 5 % beneath it, 103.8 passed twice
    assert rates(found)[:4] == [100, 200, 141.4, 118.9]
    assert rates(found)[4:] == [109.0, 113.8, 109.0, 103.8, 103.8]
    assert found.rate_per_s == found.low == 103.8
    assert found.high == 109.0


def test_confirmations_that_go_on_failing_leave_the_last_two_probes_for_a_rate_that_can_be_promised():
    seen = []

    def forgetful(rate, _number):
        """Up to 260/s at first, and only 230/s whenever a rate comes again."""
        seen.append(rate)
        return "pass" if rate <= (260 if seen.count(rate) == 1 else 230) else "fail"

    found = searched(forgetful, tolerance=0.05)
    # 259 and 247 fail their repeats; 200 had passed and does again; the last probe tries for more
    assert rates(found)[-5:] == [259.3, 247.0, 247.0, 200.0, 237.8]
    assert (found.rate_per_s, found.high, found.confirmed) == (200.0, 237.8, True)


def test_a_rate_is_confirmed_while_three_probes_are_left_for_it():
    assert rates(searched(up_to(260), most_probes=6)) == [100, 200, 400, 200, 282.8]


def test_an_invalid_confirmation_is_repeated_as_a_confirmation():
    found = searched(lambda rate, number: "invalid" if number == 7 else up_to(300)(rate, number), tolerance=0.05)
    assert rates(found)[-3:] == [295.3] * 3
    assert [p.confirms for p in found.probes if p.rate_per_s == 295.3] == [False, True, True]


def test_a_bad_moment_at_the_first_rate_does_not_cap_the_capacity():
    found = searched(lambda rate, number: "fail" if number == 0 else up_to(140)(rate, number))
    assert 140 / 1.05 <= found.rate_per_s <= 140


def test_a_lucky_pass_is_not_believed():
    found = searched(lambda rate, number: "pass" if number == 0 else up_to(80)(rate, number))
    assert rates(found).count(100) >= 2
    assert found.rate_per_s is None or found.rate_per_s <= 80


def test_a_server_that_misses_the_objective_when_idle_has_no_capacity_and_says_why():
    found = searched(lambda *_: "fail")
    assert (found.rate_per_s, found.low, found.confirmed) == (None, None, False)
    assert min(rates(found)) == pytest.approx(100 / 64, rel=1e-3)
    assert found.reason == "None of 7 probes passed. 1.562 requests/s failed: p99 61 ms is over the objective of 50 ms."


def test_a_server_that_never_fails_is_confirmed_at_the_most_that_may_be_asked():
    found = searched(lambda *_: "pass", most_rate_per_s=500)
    assert (found.rate_per_s, found.high) == (500, None)
    assert found.reason.endswith("It is the most that may be asked for, so the true capacity may be larger.")


def test_probes_that_run_out_while_all_pass_give_a_lower_bound():
    found = searched(lambda *_: "pass", most_probes=6)
    assert found.confirmed
    assert found.high is None
    assert found.reason.endswith("start the search higher.")


def test_an_invalid_probe_is_repeated_once_and_may_still_pass():
    found = searched(lambda rate, number: "invalid" if number == 1 else up_to(300)(rate, number))
    assert rates(found)[:4] == [100, 200, 200, 400]
    assert 300 / 1.031 <= found.rate_per_s <= 300


def test_a_rate_that_is_invalid_twice_is_the_generators_limit_and_the_reason_says_so():
    found = searched(lambda rate, _number: "pass" if rate <= 300 else "invalid", tolerance=0.2)
    assert found.confirmed
    assert found.rate_per_s <= 300 < found.high
    assert "could not be offered" in found.reason
    assert found.reason.endswith("the generator, not the server, is the limit.")


def test_a_disturbed_probe_is_repeated_once_and_a_disturbed_confirmation_stays_one():
    found = searched(lambda rate, number: "disturbed" if number == 1 else up_to(300)(rate, number))
    assert rates(found)[:4] == [100, 200, 200, 400]
    assert 300 / 1.031 <= found.rate_per_s <= 300
    found = searched(lambda rate, number: "disturbed" if number == 7 else up_to(300)(rate, number), tolerance=0.05)
    assert [p.confirms for p in found.probes][-2:] == [True, True]


def test_a_rate_that_is_disturbed_twice_bounds_the_search_and_the_reason_blames_no_generator():
    found = searched(lambda rate, _number: "pass" if rate <= 300 else "disturbed", tolerance=0.2)
    assert found.confirmed
    assert found.rate_per_s <= 300 < found.high
    assert "was DISTURBED twice" in found.reason
    assert found.reason.endswith("the true capacity may be larger.")


def test_no_rate_is_low_enough_where_nothing_but_disturbed_probes_was_seen():
    found = searched(lambda *_: "disturbed")
    assert rates(found) == [100, 100]
    assert found.reason.startswith("None of 2 probes passed. 100 requests/s was DISTURBED twice")


def test_a_disturbed_load_says_nothing_whatever_its_answers_were():
    fine, late = summary(), summary(latency_ms={"p99": 61.0})
    for load in (fine, late):
        disturbed = dataclasses.replace(load, disturbed="other programs used 74 % of the study's cores")
        assert judge(disturbed, OBJECTIVE) == ("disturbed", "other programs used 74 % of the study's cores")


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), most=st.integers(2, 14), weights=st.tuples(*[st.floats(0, 1)] * 2))
def test_whatever_the_verdicts_the_search_ends_in_time_and_promises_only_what_passed_twice(seed, most, weights):
    chance = random.Random(seed)
    verdicts = ("pass", "fail", "invalid", "disturbed")
    found = searched(lambda *_: chance.choices(verdicts, [*weights, 0.2, 0.2])[0], most_probes=most)
    assert len(found.probes) <= most
    assert found.confirmed == (found.rate_per_s is not None)
    if found.confirmed:
        passed = [p for p in found.probes if p.rate_per_s == found.rate_per_s and p.verdict == "pass"]
        assert len(passed) >= 2
        assert found.rate_per_s <= found.low
    if found.low and found.high:
        assert found.low < found.high


@pytest.mark.parametrize("arguments", [(0,), (-5,), (float("nan"),), (float("inf"),)])
def test_a_start_that_is_no_rate_is_refused(arguments):
    with pytest.raises(ValueError, match="cannot start"):
        Search(*arguments)


def summary(**changed):
    """The outcome of a load whose summary.json is a good one, with changes."""
    return FinishedLoadFile.model_validate(
        {
            "valid": True,
            "reasons": [],
            "scheduled": 1000,
            "ok": 1000,
            "dropped": 0,
            "wrong_answers": 0,
            "errors": {},
            "latency_ms": {"p99": 40.0},
            "service_ms": {"p99": 39.0},
            "lag_ms": {"p99": 0.1},
        }
        | changed
    ).outcome


MOVED = {"latency_ms": {"p99": None}, "lag_ms": {"p99": 3.0}}
LATE = {"valid": False, "reasons": ["the generator sent late: p99 lag 3.00 ms, over 1.00 ms"], "lag_ms": {"p99": 3.0}}


@pytest.mark.parametrize(
    ("changed", "verdict", "reason"),
    [
        ({}, "pass", "p99 40 ms is within the objective of 50 ms"),
        ({"latency_ms": {"p99": 61.0}}, "fail", "p99 61 ms is over the objective of 50 ms"),
        ({"latency_ms": {"p99": None}, "ok": 400, "scheduled": 400}, "fail", "a p99 needs 662"),
        (MOVED, "invalid", "the generator sent late: its lag moved the p99 by more than 3%"),
        (MOVED | {"service_ms": {"p99": 52.0}}, "invalid", "the generator sent late"),
        (MOVED | {"service_ms": {"p99": 88.0}}, "fail", "even without the generator's lag"),
        ({"ok": 994, "errors": {"timeout": 6}}, "fail", "0.6 % of the requests got no right answer, over 0.5 %"),
        ({"ok": 0, "valid": False, "latency_ms": {"p99": None}}, "fail", "no right answer came"),
        ({"ok": 998, "dropped": 2, "errors": {"dropped": 2}, "valid": False}, "fail", "2 arrivals were dropped"),
        (LATE, "invalid", "the generator sent late"),
        (LATE | {"latency_ms": {"p99": 52.0}, "service_ms": {"p99": 49.0}}, "invalid", "the generator sent late"),
        (LATE | {"latency_ms": {"p99": 55.0}, "service_ms": {"p99": 52.0}}, "invalid", "the generator sent late"),
        (LATE | {"latency_ms": {"p99": 90.0}, "service_ms": {"p99": 88.0}}, "fail", "even without the generator's lag"),
        ({"valid": False, "reasons": ["the load was stopped before its end"]}, "invalid", "stopped before its end"),
    ],
)
def test_a_load_passes_fails_or_is_invalid_for_the_reason_that_is_told(changed, verdict, reason):
    found, why = judge(summary(**changed), OBJECTIVE)
    assert found == verdict
    assert reason in why


def test_over_one_percent_of_failures_fail_whatever_the_objective_allows():
    lax = SearchObjective(p99_ms=50.0, max_error_percent=5.0)
    failing = {"ok": 980, "errors": {"timeout": 20}, "valid": False, "reasons": ["20 of 1000 requests failed"]}
    assert judge(summary(**failing), lax) == ("fail", "2 % of the requests got no right answer, over 1 %")


def test_what_a_lost_worker_took_with_it_is_no_error_of_the_server():
    assert error_percent(summary(ok=900, errors={"lost_worker": 100})) == 0
    assert error_percent(summary(scheduled=0, ok=0)) is None


@pytest.mark.parametrize("objective_ms", [10.0, 20.0, 40.0])
def test_the_analytic_capacity_of_an_md1_queue_is_that_of_a_simulated_one(objective_ms):
    rate = md1.capacity_per_s(2.0, objective_ms)
    latency_ms = md1.simulated_ms(poisson(rate, 2_000_000 / rate, 5).whole() / 1e9, 2.0)
    assert (latency_ms <= objective_ms).mean() == pytest.approx(0.99, abs=0.001)


@pytest.mark.parametrize("objective_ms", [20.0, 40.0])
def test_the_search_finds_the_analytic_capacity_of_an_md1_queue_within_five_percent(objective_ms):
    found = capacity_searches.find(capacity_searches.simulated(capacity_searches.SERVICE_MS, 60, 1), objective_ms, 0.03)
    true = md1.capacity_per_s(capacity_searches.SERVICE_MS, objective_ms)
    assert found.rate_per_s == pytest.approx(true, rel=0.05)


def test_a_rate_that_passed_and_then_could_not_be_offered_again_is_told_as_passed_once():
    search, seen = Search(100, most_probes=8), set()
    while (rate := search.next_rate()) is not None:
        search.record(probe(rate, "fail" if rate > 230 else "invalid" if rate in seen else "pass"))
        seen.add(rate)
    found = search.result()
    once = max(rate for rate in seen if rate <= 230)
    assert found.rate_per_s is None and once > (found.low or 0)
    assert f"the largest that passed once is {once:g} requests/s" in found.reason


PROMISE = dataclasses.replace(OBJECTIVE, promise=True)


@pytest.mark.parametrize(
    ("changed", "claim_ms", "verdict", "reason"),
    [
        ({}, 48.0, "pass", "p99 is at most 48 ms with 99 % confidence, within the objective of 50 ms"),
        ({}, 52.0, "fail", "at most 52 ms with 99 % confidence, over the objective of 50 ms, and 40 ms in the sample"),
        ({}, None, "fail", "too few of 1000 answers are independent to promise a p99"),
        ({"latency_ms": {"p99": 61.0}}, 70.0, "fail", "p99 61 ms is over the objective of 50 ms"),
    ],
)
def test_where_a_promise_is_asked_the_claim_decides(changed, claim_ms, verdict, reason):
    found, why = judge(dataclasses.replace(summary(**changed), p99_claim_ms=claim_ms), PROMISE)
    assert found == verdict
    assert reason in why


def test_a_load_that_was_given_up_fails_unless_the_generator_was_later_than_the_objective():
    given_up = {"gave_up": True, "valid": False, "reasons": ["the load was given up after 2.1 s"]}
    assert judge(summary(**given_up), OBJECTIVE)[0] == "fail"
    assert judge(summary(**given_up, lag_ms={"p99": None}), OBJECTIVE)[0] == "fail"
    late = judge(summary(**given_up, lag_ms={"p99": 80.0}), OBJECTIVE)
    assert late == ("invalid", "the load was given up after 2.1 s")
    one = probe_of(100.0, summary(**given_up), OBJECTIVE)
    assert (one.given_up, one.p99_ms) == (True, None)


@pytest.mark.parametrize("objective_ms", [10.0, 20.0])
def test_giving_up_doomed_probes_changes_neither_the_rates_nor_the_verdicts_nor_the_estimate(objective_ms):
    given_up = 0
    for seed in range(6):
        offers = (
            capacity_searches.simulated(2.0, 20, seed),
            capacity_searches.given_up_early(2.0, 20, seed, objective_ms),
        )
        plain, short = (capacity_searches.find(offer, objective_ms, 0.03, 700) for offer in offers)
        assert [(p.rate_per_s, p.verdict) for p in short.probes] == [(p.rate_per_s, p.verdict) for p in plain.probes]
        assert crossing(short.probes, objective_ms) == crossing(plain.probes, objective_ms)
        given_up += sum(p.given_up for p in short.probes)
    assert given_up >= 6
