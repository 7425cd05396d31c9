"""Stopping: what is decided at a look, by made-up engines with a known ratio on a machine that drifts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from servestorm.methods.decisions import decisions
from servestorm.methods.group_sequential import nominal_level
from servestorm.methods.verdict import Question, verdict, verdicts
from tests.simulations.rounds import MadeUpEngines, paired, study
from tests.simulations.verdicts import Share

A = [3.0, 3.3, 2.8, 3.1, 3.6, 3.2]
NOISE = [1.01, 0.99, 1.0, 1.02, 0.98, 1.0]


def times(factor, count=6):
    return [factor * noise * run for run, noise in zip(A, NOISE, strict=True)][:count]


def test_a_study_may_stop_when_every_question_is_decided():
    family = {"p50": paired(A, times(1.5)), "cpu": paired(A, times(1.0))}
    known = decisions(family)
    assert {key: found.outcome for key, found in known.verdicts.items()} == {"p50": "A", "cpu": "equivalent"}
    assert (known.decided, known.open, known.may_stop, known.rounds_more) == (["p50", "cpu"], [], True, None)


def test_an_open_question_keeps_the_study_going_and_says_how_many_rounds_more():
    wild = [run * factor for run, factor in zip(A, [1.3, 0.8, 1.1, 0.9, 1.2, 0.85], strict=True)]
    known = decisions({"p50": paired(A, times(1.5)), "p99": paired(A, wild)})
    assert (known.decided, known.open, known.may_stop) == (["p50"], ["p99"], False)
    assert known.rounds_more == known.verdicts["p99"].runs_more > 1
    assert f"about {known.rounds_more} more rounds would tell" in known.verdicts["p99"].reason


def test_a_study_without_a_question_or_with_one_round_may_not_stop():
    assert not decisions({}).may_stop
    known = decisions({"p50": paired(A, times(1.5), (0.1,), count=1)})
    assert (known.may_stop, known.rounds_more) == (False, None)
    assert "has 1 run with this number" in known.verdicts["p50"].reason


def test_a_look_before_the_end_asks_for_more_and_has_a_wider_interval():
    rounds = ([*range(6)], [*range(6)])
    final = verdict(A, times(1.1), "lower", rounds=rounds)
    early = verdict(A, times(1.1), "lower", rounds=rounds, looks=(0.3, 0.5))
    assert (final.confidence, early.confidence) == pytest.approx((0.95, 1 - nominal_level(0.05, (0.3, 0.5))))
    assert early.ratio == final.ratio
    assert early.ratio_ci[0] < final.ratio_ci[0] < final.ratio_ci[1] < early.ratio_ci[1]
    assert early.p == final.p
    assert early.p_holm > final.p_holm == final.p
    assert early.smallest_ratio > final.smallest_ratio


def test_holm_corrects_what_the_looks_have_used():
    looks = (0.4, 0.7)
    alone = decisions({0: paired(A, times(1.1), looks)}).verdicts[0]
    family = decisions({0: paired(A, times(1.1), looks), 1: paired(A, times(1.0), looks)}).verdicts[0]
    assert family.p_holm == pytest.approx(2 * alone.p_holm)
    # what Holm decides is what the nominal level of its step decides
    assert (family.p_holm < 0.05) == (family.p < nominal_level(0.025, looks))


def test_each_question_has_looks_of_its_own():
    found = decisions(
        {"steady": paired(A, times(1.2), (0.5,)), "cold start": Question(A, times(1.2), "lower")}
    ).verdicts
    assert found["steady"].confidence > found["cold start"].confidence == 0.95
    assert (found["steady"].paired, found["cold start"].paired) == (True, False)


def test_rounds_with_a_number_on_one_side_only_are_left_out_and_named():
    a, b = [*A, 9.9, None], [None, *times(1.5)[1:], None, 0.1]
    found = verdict(a, b, "lower", rounds=([*range(8)], [*range(8)]), names=("TorchServe", "savedmodel"))
    assert (found.n_a, found.n_b, found.rounds) == (5, 5, 5)
    assert found.ratio == pytest.approx(np.mean(times(1.5)[1:]) / np.mean(A[1:]))
    assert found.reason.startswith("TorchServe is better, from 5 of 8 rounds: savedmodel differs from TorchServe by +4")


def test_runs_are_paired_by_their_round_and_not_by_their_place():
    rounds = [1, 2, 3, 4, 5, 6]
    in_order = verdict(A, times(1.2), "lower", rounds=(rounds, rounds))
    turned = verdict(A[::-1], times(1.2), "lower", rounds=(rounds[::-1], rounds))
    assert turned.ratio_ci == pytest.approx(in_order.ratio_ci)
    assert turned.reason == in_order.reason


def test_without_two_rounds_in_common_the_sides_are_independent():
    found = verdict(A[:3], times(1.5)[3:], "lower", rounds=([1, 2, 3], [3, 4, 5]))
    assert found == verdict(A[:3], times(1.5)[3:], "lower")
    assert (found.paired, found.rounds) == (False, None)


def test_rounds_that_do_not_fit_the_runs_are_refused():
    with pytest.raises(ValueError, match="give each run a round of its own"):
        verdict(A, A, "lower", rounds=([1] * 6, [1, 2, 3, 4, 5, 6]))
    with pytest.raises(ValueError, match="give each run a round of its own"):
        verdict(A, A, "lower", rounds=([1, 2], [1, 2]))


def test_rounds_that_are_the_same_are_equivalent_and_those_that_differ_alike_are_not_judged():
    rounds = ([*range(6)], [*range(6)])
    assert verdict(A, A, "lower", rounds=rounds).outcome == "equivalent"
    found = verdict(A, [2 * run for run in A], "lower", rounds=rounds)
    assert (found.outcome, found.p) == ("inconclusive", None)
    assert "all rounds differ alike" in found.reason


def test_the_time_that_would_tell_is_that_of_the_rounds():
    wild = [run * factor for run, factor in zip(A, [1.3, 0.8, 1.1, 0.9, 1.2, 0.85], strict=True)]
    found = verdicts({0: paired(A, wild)._replace(round_s=90.0)})[0]
    assert found.minutes_more == pytest.approx(1.5 * found.runs_more)
    assert f"about {found.runs_more} more rounds (about " in found.reason
    assert verdicts({0: paired(A, times(1.5))._replace(round_s=90.0)})[0].minutes_more is None


def test_a_known_ratio_is_decided_rightly_and_its_interval_holds_it():
    rng, outcomes, held, studies = np.random.default_rng(15), [], 0, 400
    for _ in range(studies):
        a, b = MadeUpEngines(1.10, rng).rounds(6)
        found = decisions({0: paired(a, b)}).verdicts[0]
        outcomes.append(found.outcome)
        held += found.ratio_ci[0] <= 1.10 <= found.ratio_ci[1]
    assert "B" not in outcomes
    assert outcomes.count("A") > 0.95 * studies
    low, high = Share(held, studies).interval
    assert low <= 0.95 <= high


def test_what_drift_does_to_both_engines_costs_pairs_nothing():
    a, b = MadeUpEngines(1.10, np.random.default_rng(3)).rounds(8)
    assert decisions({0: paired(a, b)}).verdicts[0].outcome == "A"
    assert verdict(a, b, "lower").outcome == "inconclusive"


def test_an_engine_against_itself_is_called_better_in_5_of_100_studies_that_look_after_each_round():
    rng, studies, wrong, held = np.random.default_rng(16), 300, 0, 0
    for _ in range(studies):
        _, known = study([MadeUpEngines(1.0, rng)], rounds=8, margin=0.0)
        wrong += any(found.outcome in ("A", "B") for found in known.verdicts.values())
        interval = known.verdicts[0].ratio_ci
        held += interval[0] <= 1.0 <= interval[1]
    assert Share(wrong, studies).interval[0] <= 0.05
    assert Share(held, studies).interval[1] >= 0.95


def test_a_study_stops_the_sooner_the_larger_the_difference_and_its_interval_holds_the_ratio():
    rounds, held, studies = {}, 0, 60
    for ratio in (1.1, 2.0):
        rng = np.random.default_rng([17, round(10 * ratio)])
        ends = [study([MadeUpEngines(ratio, rng)], rounds=12) for _ in range(studies)]
        rounds[ratio] = np.mean([count for count, _ in ends])
        for _, known in ends:
            low, high = known.verdicts[0].ratio_ci
            held += low <= ratio <= high
        assert all(known.verdicts[0].outcome == "A" for _, known in ends)
    assert rounds[2.0] < rounds[1.1] < 12
    assert Share(held, 2 * studies).interval[1] >= 0.95


def test_as_many_rounds_more_as_said_decide_mostly():
    rng, decided, studies = np.random.default_rng(18), 0, 0
    while studies < 100:
        engines = MadeUpEngines(1.06, rng)
        a, b = engines.rounds(3)
        more = decisions({0: paired(a, b)}).rounds_more
        if more is None or more > 40:
            continue
        studies += 1
        further = engines.rounds(more)
        known = decisions({0: paired([*a, *further[0]], [*b, *further[1]])})
        decided += known.may_stop
    assert Share(decided, studies).interval[1] >= 0.80


def test_no_interval_leaves_zero_or_infinity():
    rng = np.random.default_rng(19)
    for _ in range(50):
        a, b = MadeUpEngines(float(rng.uniform(0.01, 100)), rng).rounds(2)
        interval = decisions({0: paired(a, b)}).verdicts[0].ratio_ci
        assert interval is None or 0 < interval[0] < interval[1] < math.inf
