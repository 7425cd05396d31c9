"""A figure is made of the slices whose lag did not decide it: chosen by lag alone, and no fewer than it takes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.samples.slices import reading, seconds_of, usable_slices
from loadtests.samples.validity import MOST_MOVED, PERCENTILES, figure_counts, samples_needed
from servestorm.methods.percentiles import percentile

MS = 1_000_000


def load(slices, each, *, lag_ms=0.0, service_ms=5.0, seed=0):
    """Latencies from the schedule and from the send, and slices; the lag of a slice is `lag_ms` or its entry there."""
    slice_of = np.repeat(np.arange(slices), each)
    service = np.random.default_rng(seed).gamma(20, service_ms / 20, len(slice_of)) * MS
    lag = np.broadcast_to(np.asarray(lag_ms, float), (slices,))[slice_of] * MS
    return (service + lag).astype(np.int64), service.astype(np.int64), slice_of


def test_without_lag_every_slice_is_used_and_both_readings_are_the_same():
    for name, figure in usable_slices(*load(10, 100)).items():
        assert figure.used.all()
        assert figure.scheduled == figure.sent
        assert figure.counts is (None if name == "p999" else True)


def test_one_late_slice_is_left_out_and_the_readings_are_of_the_others():
    lag = np.zeros(10)
    lag[3] = 30.0
    scheduled, sent, slice_of = load(10, 200, lag_ms=lag)
    figure = usable_slices(scheduled, sent, slice_of)["p99"]
    assert figure.counts
    assert figure.used.tolist() == [number != 3 for number in range(10)]
    others = slice_of != 3
    assert figure.scheduled == percentile(scheduled[others], 0.99)
    assert figure.sent == percentile(sent[others], 0.99)


def test_a_lag_in_most_slices_makes_the_figure_invalid_and_shows_its_readings_over_all():
    lag = np.zeros(10)
    lag[:6] = 3.0
    scheduled, sent, slice_of = load(10, 200, lag_ms=lag)
    figure = usable_slices(scheduled, sent, slice_of)["p50"]
    assert figure.counts is False
    assert figure.used.all()
    assert figure.scheduled == percentile(scheduled, 0.5)


def test_no_slice_is_left_out_that_the_percentile_cannot_spare():
    lag = np.zeros(10)
    lag[0] = 30.0
    spared = usable_slices(*load(10, 70, lag_ms=lag))["p99"]
    assert samples_needed(0.99) == 662 > 9 * 70
    assert spared.counts is False
    assert usable_slices(*load(10, 74, lag_ms=lag))["p99"].counts


def test_a_slice_without_an_answer_is_used_by_none_and_counts_towards_no_half():
    scheduled, sent, slice_of = load(4, 50)
    figures = usable_slices(scheduled, sent, slice_of + 2, slices=8)
    assert figures["p50"].used.tolist() == [False, False, True, True, True, True, False, False]


def test_no_answer_at_all_has_no_figure():
    empty = np.empty(0, np.int64)
    for figure in usable_slices(empty, empty, empty, slices=3).values():
        assert (figure.scheduled, figure.counts, figure.used.tolist()) == (None, None, [False] * 3)


def test_a_slice_of_a_load_without_turns_is_a_second_of_its_schedule():
    assert seconds_of(np.array([5, 999_999_999, 1_000_000_005]), 5).tolist() == [0, 0, 1]


LAGS = st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.3, 2.0]), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(lags=LAGS, each=st.integers(1, 120), seed=st.integers(0, 1000))
def test_slices_are_left_out_in_the_order_of_their_lag_and_only_as_many_as_it_takes(lags, each, seed):
    scheduled, sent, slice_of = load(len(lags), each, lag_ms=lags, seed=seed)
    by_lag = sorted(range(len(lags)), key=lambda number: -lags[number])

    def readings(left_out, name):
        keep = ~np.isin(slice_of, by_lag[:left_out])
        return tuple(reading(name, np.sort(values[keep])) for values in (scheduled, sent))

    for name, figure in usable_slices(scheduled, sent, slice_of).items():
        tried = [readings(n, name) for n in range(len(lags) // 2 + 1)]
        if tried[0][0] is None:
            assert figure.counts is None
            continue
        enough = [n for n, pair in enumerate(tried) if pair[0] is not None and figure_counts(name, *pair)]
        left_out = enough[0] if enough else 0
        assert figure.counts == bool(enough)
        assert (figure.scheduled, figure.sent) == tried[left_out]
        assert set(np.flatnonzero(~figure.used)) == set(by_lag[:left_out])


@settings(max_examples=100, deadline=None)
@given(lags=LAGS, seed=st.integers(0, 1000), scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_of_the_latencies_and_the_order_of_the_samples_do_not_matter(lags, seed, scale):
    scheduled, sent, slice_of = load(len(lags), 40, lag_ms=lags, seed=seed)
    order = np.random.default_rng(seed).permutation(len(sent))
    before = usable_slices(scheduled, sent, slice_of)
    after = usable_slices(scheduled[order] * scale, sent[order] * scale, slice_of[order])
    for name in MOST_MOVED:
        assert after[name].used.tolist() == before[name].used.tolist()
        assert after[name].counts == before[name].counts
        if before[name].sent is not None:
            assert after[name].sent == pytest.approx(before[name].sent * scale)


def test_a_reading_is_the_nearest_rank_that_the_analysis_takes():
    values = np.sort(np.random.default_rng(1).exponential(5, 3001))
    for name, quantile in PERCENTILES.items():
        assert reading(name, values) == percentile(values, quantile)
