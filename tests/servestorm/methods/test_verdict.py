"""Verdicts: textbook figures, the order of their rules, and a short form of benchmarks/calibration/verdicts.py."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import nct, ttest_ind
from scipy.stats import t as student

from servestorm.methods.paper import paper
from servestorm.methods.power import MOST_RUNS_MORE, standard_effect
from servestorm.methods.ratio import Effect, percent_interval
from servestorm.methods.verdict import Question, verdict, verdicts
from servestorm.methods.welch import hedges, holm, welch
from tests.simulations.verdicts import (
    Share,
    false_verdicts,
    found_effects,
    g_coverage,
    latencies,
    normal,
    percent_coverage,
)

A = [10.0, 10.2, 9.9, 10.1, 10.0]
SLOWER = [12.0, 12.3, 11.8, 12.1, 12.2]
ALIKE = [10.1, 10.0, 10.2, 9.9, 10.1]
NOISY = [8.0, 13.0, 9.5, 12.5, 10.0]

runs = st.lists(st.floats(0.1, 1e4), min_size=2, max_size=4)


def test_a_number_that_can_be_0_is_judged_by_its_difference_as_welch_does():
    share, more = [0.0, 0.4, 0.2, 0.3], [1.2, 1.0, 1.4, 1.1]
    found, wanted = verdict(share, more, "lower"), ttest_ind(more, share, equal_var=False)
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.difference_percent == pytest.approx(100 * (np.mean(more) / np.mean(share) - 1))
    assert (found.ratio_ci, found.smallest_ratio) == (None, None)
    # Fieller's interval is Welch's plus what the scatter of a's own mean adds
    plain = [100 * end / np.mean(share) for end in wanted.confidence_interval(0.95)]
    assert found.ci_percent[1] - found.ci_percent[0] > plain[1] - plain[0]
    assert welch(share, more).p == pytest.approx(wanted.pvalue)


def test_fiellers_interval_is_that_of_a_worked_example():
    # means 10 and 12, squared errors 0.04 and 0.09 over 4 runs each: the roots of Fieller's quadratic in B / A
    df = 0.13**2 / (0.04**2 / 3 + 0.09**2 / 3)
    square = student.ppf(0.975, df) ** 2
    low, high = (100 * (root - 1) for root in sorted(np.roots([100 - 0.04 * square, -240, 144 - 0.09 * square])))
    effect = Effect("difference", 4, 4, 10.0, 12.0, 2.0, math.sqrt(0.13), df, 0.04, 0.09, 0.01, False)
    assert percent_interval(effect, 0.05) == pytest.approx((low, high), abs=1e-6)


def test_holm_multiplies_each_p_by_the_tests_that_are_left_and_never_falls():
    # Holm 1979: 3 x 0.01, then 2 x 0.02, then 0.04 lifted to the one before
    assert holm({"a": 0.02, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.04, "b": 0.03, "c": 0.04})
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_hedges_g_is_that_of_a_worked_example():
    # means 3 and 8, pooled variance (1 + 4) / 2, d = 3.162, J(4) = gamma(2) / (sqrt(2) gamma(1.5)) = 0.7979
    g, interval = hedges([2.0, 3.0, 4.0], [6.0, 8.0, 10.0], 0.05)
    assert g == pytest.approx(3.1623 * 0.79788, rel=1e-4)
    t, scale = 3.1623 * math.sqrt(1.5), math.sqrt(1.5)
    assert [nct.cdf(t, 4, end * scale) for end in interval] == pytest.approx([0.975, 0.025], abs=1e-4)


def test_the_side_with_the_lower_latency_wins():
    assert verdict(A, SLOWER, "lower").outcome == "A"
    assert verdict(SLOWER, A, "lower").outcome == "B"


def test_no_interval_reaches_one_hundred_percent_less_and_one_wider_than_a_factor_of_three_is_not_printed():
    found = verdict([3.2, 3.4, 3.3], [4.9, 6.3], "lower")
    assert (found.outcome, found.too_wide) == ("inconclusive", True)
    assert found.ci_percent[0] > -100
    assert 0 < found.ratio_ci[0] < found.ratio < found.ratio_ci[1]
    assert found.reason.startswith("Inconclusive: the runs scatter too much to say; about ")
    narrow = verdict([3.2, 3.4, 3.3], [4.9, 5.2], "lower")
    assert (narrow.outcome, narrow.too_wide) == ("A", False)
    shares = verdict([0.0, 0.3, 0.1], [0.0, 0.2, 0.4], "lower")
    assert (shares.ci_percent, shares.too_wide) == (None, True)


def test_the_side_with_the_higher_throughput_wins():
    assert verdict(A, SLOWER, "higher").outcome == "B"
    assert verdict(SLOWER, A, "higher").outcome == "A"


def test_an_interval_inside_the_margin_is_equivalent_even_where_the_difference_is_real():
    slightly = [value * 1.03 for value in A]
    assert verdict(A, slightly, "lower").p < 0.01
    assert verdict(A, slightly, "lower").outcome == "equivalent"
    assert verdict(A, slightly, "lower", margin=0.02).outcome == "A"


def test_an_interval_that_reaches_over_the_margin_is_not_equivalent():
    found = verdict(A, [value * 1.04 for value in A], "lower")
    assert found.ci_percent[0] > 0
    assert found.ci_percent[1] > 5
    assert found.outcome == "A"


def test_scatter_leaves_it_open_and_says_how_many_runs_would_tell():
    found = verdict(A, NOISY, "lower")
    assert found.outcome == "inconclusive"
    assert found.runs_more > 1
    assert f"about {found.runs_more} more runs of each would tell" in found.reason


def test_less_scatter_needs_fewer_runs():
    calm = [float(np.mean(NOISY) + (value - np.mean(NOISY)) / 2) for value in NOISY]
    assert verdict(A, calm, "lower").outcome == "inconclusive"
    assert verdict(A, calm, "lower").runs_more < verdict(A, NOISY, "lower").runs_more


def test_the_advice_for_sides_that_seem_alike_is_the_sample_size_of_an_equivalence_test():
    # Schuirmann 1987 at a true difference of 0: (t_0.975 + t_0.90) standard errors must fit into the margin
    side = [9.0, 11.0, 10.0, 10.0, 10.0]
    found = verdict(side, side, "lower")

    def room(count):
        errors = math.sqrt(2 * np.var(side, ddof=1) / count) / 10
        return math.log(1.05) - errors * (student.ppf(0.975, 2 * count - 2) + student.ppf(0.90, 2 * count - 2))

    assert room(5 + found.runs_more) >= 0 > room(5 + found.runs_more - 1)


def test_no_advice_is_given_where_no_number_of_runs_in_reach_would_tell():
    wild = [1.0, 400.0, 3.0]
    found = verdict(wild, [2.0, 390.0, 12.0], "lower")
    assert found.runs_more is None
    assert f"even {MOST_RUNS_MORE:,} more runs of each would not tell" in found.reason


def test_an_answer_needs_no_more_runs():
    assert verdict(A, SLOWER, "lower").runs_more is None
    assert verdict(A, ALIKE, "lower").runs_more is None


def test_the_correction_grows_with_the_family():
    close = [10.2, 10.5, 10.1, 10.4, 10.3]
    alone = verdict(A, close, "lower", margin=0.0)
    family = {"it": Question(A, close, "lower")} | dict.fromkeys(range(9), Question(A, ALIKE, "lower"))
    among = verdicts(family, margin=0.0)["it"]
    assert (alone.outcome, among.outcome) == ("A", "inconclusive")
    assert among.p == alone.p
    assert among.p_holm == pytest.approx(10 * alone.p)
    assert among.smallest_effect_percent > alone.smallest_effect_percent
    assert "with so many comparisons that may be chance" in among.reason


def test_what_could_not_be_tested_does_not_count_in_the_family():
    sides = {"it": (A, SLOWER), "one run": ([1.0], [2.0]), "alike": ([1.0] * 3, [1.0] * 3)}
    family = {key: Question(a, b, "lower") for key, (a, b) in sides.items()}
    assert verdicts(family)["it"].p_holm == verdict(A, SLOWER, "lower").p


def test_missing_runs_are_left_out_and_never_zero():
    found = verdict([None, *A, None], [*SLOWER, None, math.nan], "lower")
    assert found == verdict(A, SLOWER, "lower")


@pytest.mark.parametrize("few", [[], [None], [5.0], [5.0, None]])
def test_fewer_than_two_runs_give_no_numbers(few):
    found = verdict(few, A, "lower")
    assert found.outcome == "inconclusive"
    evidence = (found.ci_percent, found.p, found.p_holm, found.g, found.g_ci, found.smallest_effect_percent)
    assert set(evidence) == {None}
    assert found.runs_more is None
    assert "at least 2 of each are needed" in found.reason


def test_a_side_without_scatter_is_judged_by_the_other_sides():
    found = verdict([10.0] * 3, SLOWER, "lower")
    assert found.outcome == "A"
    error = np.std(SLOWER, ddof=1) / math.sqrt(5) / np.mean(SLOWER)
    assert found.p == pytest.approx(2 * student.sf(math.log(np.mean(SLOWER) / 10) / error, 4), rel=1e-9)
    assert verdict(SLOWER, [10.0] * 3, "lower").outcome == "B"


def test_two_sides_without_scatter_are_equivalent_only_where_they_are_the_same():
    assert verdict([5.0] * 3, [5.0] * 3, "lower").outcome == "equivalent"
    assert verdict([0.0] * 3, [0.0] * 3, "lower").outcome == "equivalent"
    found = verdict([5.0] * 3, [6.0] * 3, "lower")
    assert (found.outcome, found.p, found.runs_more) == ("inconclusive", None, None)
    assert "runs without scatter cannot be judged" in found.reason


def test_a_difference_from_nothing_has_no_percent_but_a_winner():
    found = verdict([0.0] * 3, [3.0, 4.0, 3.5], "lower")
    assert (found.outcome, found.difference_percent, found.ci_percent) == ("A", None, None)
    assert "by how much, the runs do not tell" in found.reason


def test_a_mean_that_scatters_too_much_to_divide_by_gives_no_interval():
    found = verdict([0.0, 30.0, 2.0], [50.0, 60.0, 55.0], "lower")
    assert found.difference_percent is not None
    assert found.ci_percent is None
    assert found.outcome != "equivalent"


def test_the_reason_calls_the_sides_by_their_names():
    assert verdict(A, SLOWER, "lower", names=("TorchServe", "savedmodel")).reason.startswith(
        "TorchServe is better: sav"
    )


def test_the_smallest_effect_shrinks_with_the_runs():
    few, many = verdict(A[:3], ALIKE[:3], "lower"), verdict(A * 4, ALIKE * 4, "lower")
    assert many.smallest_effect_percent < few.smallest_effect_percent


def test_the_power_of_many_runs_is_the_textbooks():
    # two samples of 100 each: (1.972 + 0.843) standard errors
    assert standard_effect(100, 100, 0.5, 0.05) == pytest.approx(2.816, abs=0.005)


@settings(max_examples=60, deadline=None)
@given(runs, runs)
def test_the_interval_leaves_zero_out_exactly_where_p_is_under_five_percent(a, b):
    found = verdict(a, b, "lower")
    assume(found.ci_percent is not None and abs(found.p - 0.05) > 1e-9)
    low, high = found.ci_percent
    assert (low > 0 or high < 0) == (found.p < 0.05)
    assert low <= found.difference_percent <= high


@settings(max_examples=60, deadline=None)
@given(runs, runs)
def test_swapping_the_sides_swaps_the_winner(a, b):
    one, other = verdict(a, b, "lower", margin=0.0), verdict(b, a, "lower", margin=0.0)
    assert other.outcome == {"A": "B", "B": "A"}.get(one.outcome, one.outcome)


extreme = st.lists(st.none() | st.floats(), max_size=4)


@settings(deadline=None)
@given(extreme, extreme, st.sampled_from(["lower", "higher"]))
def test_whatever_the_runs_are_the_verdict_is_json_without_nan(a, b, better):
    with np.errstate(all="raise"):
        found = verdict(a, b, better)
    json.dumps(asdict(found), allow_nan=False)


def test_the_paper_takes_three_runs_and_corrects_nothing():
    found = paper([2.0, None, 3.0, 4.0, 99.0], [6.0, 8.0, 10.0])
    # means 3 and 8, t = 5 / sqrt(5 / 3), df = (5 / 3)^2 / (1 / 18 + 16 / 18)
    assert (found.n_a, found.mean_a, found.sd_a, found.mean_b, found.sd_b) == (3, 3.0, 1.0, 8.0, 2.0)
    assert (found.t, found.df) == pytest.approx((3.873, 2.941), abs=0.001)
    assert found.p == pytest.approx(0.0316, abs=0.0005)
    assert found.significant is True


def test_the_paper_says_nothing_of_one_run():
    found = paper([2.0], [6.0, 8.0])
    assert (found.sd_a, found.t, found.p, found.significant) == (None, None, None, None)


@pytest.mark.parametrize(("simulate", "metrics"), [(normal, 1), (normal, 5), (latencies, 4)])
@pytest.mark.parametrize("count", [3, 5])
def test_an_engine_against_itself_gets_a_false_verdict_in_five_of_a_hundred_studies_at_most(simulate, metrics, count):
    strict, usual = false_verdicts(simulate, metrics, count, studies=100, seed=1)
    assert strict.interval[0] <= 0.05
    assert usual.k <= strict.k


def test_an_effect_as_small_as_said_is_found_at_the_stated_power():
    for count, ratio in ((3, 1.0), (5, 3.0)):
        _, found = found_effects(count, ratio, studies=400, seed=1)
        assert found.interval[0] <= 0.80 <= found.interval[1]


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    held = [percent_coverage(normal, percent, 3, studies=300, seed=1) for percent in (0.0, 200.0)]
    held += [g_coverage(effect, 3, studies=300, seed=1) for effect in (0.0, 3.0)]
    assert [share for share in held if share.interval[1] < 0.95] == []
    assert min(share.n for share in held) > 290


def test_a_share_has_wilsons_interval():
    # Wilson 1927, of 5 in 100: 2.15 to 11.18 percent
    assert Share(5, 100).interval == pytest.approx((0.0215, 0.1118), abs=0.0001)
