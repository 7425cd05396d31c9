"""The verdict sees made-up engines with a known ratio under noise that was recorded on real servers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from servestorm.methods.ratio import effect_of
from servestorm.methods.verdict import Question, verdict, verdicts
from tests.simulations import designs
from tests.simulations.late_generator import GOALS, Condition, answered, carried, late_run, service_times
from tests.simulations.recorded_noise import FIGURES, blocks, figures, read_recording

NOISE = read_recording()
ROUNDS, SLICES = 8, 8


@pytest.fixture(scope="module")
def studies():
    """(200 studies, sides, rounds, figures), without a true difference."""
    rng = np.random.default_rng(7)
    return designs.drawn(designs.interleaved_runs(NOISE, SLICES), rng, 200, ROUNDS, together=True)


def judged(study, ratio):
    """Verdicts on one study with B `ratio` times A."""
    family = {
        name: Question(study[0, :, k], ratio * study[1, :, k], "lower", rounds=(range(ROUNDS), range(ROUNDS)))
        for k, name in enumerate(FIGURES)
    }
    return verdicts(family)


def test_the_recording_holds_whole_rounds_of_two_servers_and_one_was_idle_while_the_other_was_loaded():
    assert NOISE.engines == ("savedmodel", "torchserve") and len(NOISE.rounds) == 9
    slices = [one for sides in NOISE.rounds for side in sides for one in side]
    assert len(slices) == 9 * 2 * 14 and {one.lag_ms.size for one in slices} == {87}
    assert min(one.lag_ms.min() for one in slices) >= 0 and min(one.service_ms.min() for one in slices) > 1
    assert np.mean([one.idle_cpu_share for one in slices]) < 0.01
    assert figures(NOISE.rounds[1][0]) == pytest.approx([2.57, 6.65, 2.5], rel=0.02)


def test_a_known_ratio_is_found_with_the_right_sign_and_inside_its_interval(studies):
    found = [judged(study, 1.25) for study in studies]
    for name in ("p50", "cpu"):
        outcomes = [one[name].outcome for one in found]
        assert outcomes.count("A") >= 195 and "B" not in outcomes
        inside = [one[name].ratio_ci[0] <= 1.25 <= one[name].ratio_ci[1] for one in found]
        assert 0.90 <= np.mean(inside) <= 0.99


def test_without_a_difference_hardly_any_family_has_a_winner(studies):
    wrong = [any(one.outcome in ("A", "B") for one in judged(study, 1.0).values()) for study in studies]
    assert np.mean(wrong) <= 0.09


def test_the_design_in_rounds_finds_ratios_a_third_as_large_as_runs_one_after_another(studies):
    rng, times = np.random.default_rng(3), designs.Times()
    runs = round(ROUNDS * times.round_s(SLICES, 1.25) / times.blocks_s(1, 10))
    blocks_p50 = designs.drawn(designs.blocks_runs(NOISE, strict=False), rng, 2000, runs, together=False)[..., 0]
    today = designs.smallest_log_ratio(lambda log_ratio: designs.welch_p(blocks_p50, math.exp(log_ratio)))
    assert designs.smallest_log_ratio(designs.paired(studies[..., 0]).p) < today / 2.5


def test_the_estimates_of_many_studies_are_those_of_the_product(studies):
    broken = studies[:5, :, :, 0].copy()
    broken[0, 1, 3] = np.nan
    paired, unpaired = designs.paired(broken), designs.unpaired(studies[:5, :, :, 0])
    for number, study in enumerate(broken):
        whole = study[:, np.isfinite(study).all(axis=0)]
        effect = effect_of(whole[0], whole[1], paired=True)
        values = (paired.value[number], paired.error[number], paired.df[number], paired.p()[number])
        assert values == pytest.approx((effect.estimate, effect.error, effect.df, effect.p))
        effect = effect_of(studies[number, 0, :, 0], studies[number, 1, :, 0])
        values = (unpaired.value[number], unpaired.error[number], unpaired.df[number], unpaired.p()[number])
        assert values == pytest.approx((effect.estimate, effect.error, effect.df, effect.p))


def test_rounds_that_are_all_alike_are_no_evidence():
    runs = np.array([[[2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]])
    assert designs.paired(runs).p() == [1.0]
    assert verdict([2.0] * 3, [3.0] * 3, "lower", rounds=(range(3), range(3))).outcome == "inconclusive"


def test_a_stationary_block_goes_on_until_the_next_begins():
    places = blocks(14, 10_000, np.random.default_rng(1))
    goes_on = np.mean((places[1:] - places[:-1]) % 14 == 1)
    assert goes_on == pytest.approx(3 / 4 + 1 / 4 / 14, abs=0.02) and set(places.tolist()) == set(range(14))


def test_a_queue_answers_each_request_after_the_one_before_and_gives_the_recorded_answers_back():
    assert answered(np.array([0.0, 1, 10]), np.array([4.0, 2, 1])).tolist() == [4, 6, 11]
    one = NOISE.rounds[2][1][5]
    sent = one.offset_ms + one.lag_ms
    assert answered(sent, service_times(one)) - sent == pytest.approx(one.service_ms, abs=0.05)


def test_without_lag_measured_and_true_latencies_are_the_same():
    run = late_run(NOISE, Condition("none", "recorded", times=0), 5, np.random.default_rng(1))
    assert np.concatenate(run.scheduled) == pytest.approx(np.concatenate(run.true))
    assert np.concatenate(run.sent) == pytest.approx(np.concatenate(run.true))


@pytest.mark.parametrize("p50_ms", [1.5, 3.0])
def test_at_a_limit_of_1_percent_the_lag_of_the_generator_makes_no_p50_of_a_fast_server_invalid(p50_ms):
    """An arrival that was prepared only when it was due was late by over 1 % of such a p50."""
    rng = np.random.default_rng(5)
    counted = {}
    for generator in ("before", "after"):
        condition = Condition("fast", "now", generator=generator, p50_ms=p50_ms)
        runs = [late_run(NOISE, condition, 10, rng) for _ in range(20)]
        p50 = carried(runs, GOALS["p50"])["p50"]
        counted[generator] = len(p50.left_out)
        assert (np.abs(p50.from_schedule) < GOALS["p50"]).all()
    assert counted["after"] == 20 and counted["before"] < (12 if p50_ms < 2 else 21)


def test_a_p99_that_counts_under_the_recorded_lag_is_within_3_percent_of_the_true_one():
    rng = np.random.default_rng(5)
    runs = [late_run(NOISE, Condition("recorded", "recorded"), 10, rng) for _ in range(60)]
    p99 = carried(runs, 0.03)["p99"]
    assert len(p99.left_out) > 50
    assert np.quantile(np.abs(p99.from_schedule), 0.9) < GOALS["p99"]
