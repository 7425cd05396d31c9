"""Arrival processes: rates, variability, determinism, dealing over workers."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.arrivals import processes
from loadtests.arrivals.blocks import (
    BLOCK_ARRIVALS,
    NO_ARRIVALS,
    BlockSchedule,
    MeasuredAmong,
    RecordedSchedule,
    regrouped,
)
from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.arrivals.options import PROCESSES
from loadtests.arrivals.table import ARRIVALS
from loadtests.errors import LoadTestError

MAKERS = {
    "constant": lambda rate, seconds, seed: processes.constant(rate, seconds).whole(),
    "poisson": lambda rate, seconds, seed: processes.poisson(rate, seconds, seed).whole(),
    "gamma": lambda rate, seconds, seed: processes.gamma(rate, 3.0, seconds, seed).whole(),
    "on_off": lambda rate, seconds, seed: processes.on_off(rate, 4 * rate, 1.0, 2.0, seconds, seed).whole(),
    "mmpp": lambda rate, seconds, seed: processes.mmpp([rate, 5 * rate], [2.0, 0.5], seconds, seed).whole(),
    "spike": lambda rate, seconds, seed: processes.spike(rate, 4 * rate, seconds / 2, 1.0, seconds, seed).whole(),
    "ramp": lambda rate, seconds, seed: processes.ramp(rate, 3 * rate, seconds, seed).whole(),
    "diurnal": lambda rate, seconds, seed: processes.diurnal(rate, 0.8, 10.0, seconds, seed).whole(),
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
        (lambda s: processes.constant(200, s).whole(), 500, 200),
        (lambda s: processes.poisson(200, s, 1).whole(), 500, 200),
        (lambda s: processes.gamma(200, 3.0, s, 1).whole(), 500, 200),
        (lambda s: processes.on_off(100, 400, 1, 2, s, 1).whole(), 600, 200),
        (lambda s: processes.mmpp([50, 500], [3.0, 1.0], s, 1).whole(), 5000, (50 * 3 + 500) / 4),
        (lambda s: processes.spike(100, 1100, 100, 50, s, 1).whole(), 500, 200),
        (lambda s: processes.ramp(100, 300, s, 1).whole(), 500, 200),
        (lambda s: processes.diurnal(200, 0.8, 60, s, 1).whole(), 600, 200),
    ],
)
def test_the_mean_rate_is_what_the_parameters_say(make, seconds, rate):
    assert len(make(seconds)) / seconds == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize(("cv", "tolerance"), [(0.5, 0.02), (1.0, 0.03), (3.0, 0.15)])
def test_gamma_gaps_have_the_coefficient_of_variation_asked_for(cv, tolerance):
    gaps = np.diff(processes.gamma(1000, cv, 200, 7).whole())
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
    schedule = processes.on_off(20, 200, 2, 3, 500, 5).whole()
    phase = schedule % 5_000_000_000
    assert (phase < 3_000_000_000).sum() / 300 == pytest.approx(20, rel=0.05)
    assert (phase >= 3_000_000_000).sum() / 200 == pytest.approx(200, rel=0.05)


def test_a_silent_base_sends_nothing_between_the_bursts():
    schedule = processes.on_off(0, 100, 1, 1, 100, 5).whole()
    assert (schedule % 2_000_000_000 >= 1_000_000_000).all()


@given(count=st.integers(0, 200), workers=st.integers(1, 12))
def test_dealing_over_workers_loses_and_doubles_nothing(count, workers):
    schedule = np.arange(count, dtype=np.int64) * 1000
    dealt = [RecordedSchedule(schedule).deal(worker, workers).whole() for worker in range(workers)]
    assert sorted(np.concatenate(dealt).tolist()) == schedule.tolist()
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_statistics_of_too_few_arrivals_are_missing_rather_than_zero():
    nothing = processes.statistics_of(NO_ARRIVALS, 1.0)
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
        lambda: NO_ARRIVALS.deal(3, 3),
    ],
)
def test_a_load_that_cannot_be_made_is_refused_in_one_sentence(make):
    with pytest.raises(LoadTestError, match=r"^[^\n]+\.$"):
        make()


def test_every_process_that_the_command_line_offers_is_in_the_table():
    assert tuple(ARRIVALS) == PROCESSES


# Longer than a few blocks, at rates at which no block ends where anything else does.
LONG_S, RATE, SEED = 61.7, 911.3, 20_261_129


def in_one_piece(rate, cv, duration_s, seed):
    """Gamma arrivals, s, by the definition: all gaps drawn at once, and added up at once."""
    rng, shape, times, last = np.random.default_rng(seed), 1 / cv**2, [], 0.0
    while last < duration_s:
        expected = rate * (duration_s - last)
        gaps = rng.gamma(shape, 1 / (rate * shape), int(expected + 4 * cv * np.sqrt(expected) + 16))
        times.append(last + np.cumsum(gaps))
        last = float(times[-1][-1])
    times = np.concatenate(times)
    return times[times < duration_s]


def on_off_in_one_piece(base, peak, on_s, off_s, duration_s):
    spans = np.array([off_s, on_s] * int(np.ceil(duration_s / (on_s + off_s))))
    rates = np.array([base, peak] * (len(spans) // 2))
    edges, counts = (np.concatenate([[0.0], np.cumsum(each)]) for each in (spans, rates * spans))
    unit = in_one_piece(1.0, 1.0, float(np.interp(duration_s, edges, counts)), SEED)
    piece = np.searchsorted(counts, unit, side="right") - 1
    return edges[piece] + (unit - counts[piece]) / rates[piece]


def ramp_in_one_piece(start, end, duration_s):
    unit, slope = in_one_piece(1.0, 1.0, (start + end) / 2 * duration_s, SEED), (end - start) / duration_s
    return 2 * unit / (start + np.sqrt(np.maximum(start * start + 2 * slope * unit, 0.0)))


def diurnal_in_one_piece(mean, amplitude, period_s, duration_s):
    omega = 2 * np.pi / period_s
    times = np.linspace(0, duration_s, int(np.ceil(duration_s / period_s * 4096)) + 1)
    counts = mean * (times - amplitude * np.sin(omega * times) / omega)
    return np.interp(in_one_piece(1.0, 1.0, counts[-1], SEED), counts, times)


@pytest.mark.parametrize(
    ("schedule", "times_s"),
    [
        (processes.constant(RATE, LONG_S), np.arange(int(np.ceil(RATE * LONG_S))) / RATE),
        (processes.poisson(RATE, LONG_S, SEED), in_one_piece(RATE, 1.0, LONG_S, SEED)),
        (processes.gamma(RATE, 3.0, LONG_S, SEED), in_one_piece(RATE, 3.0, LONG_S, SEED)),
        (processes.gamma(40.0, 30.0, 4 * LONG_S, 2), in_one_piece(40.0, 30.0, 4 * LONG_S, 2)),
        (processes.on_off(RATE, 4e3, 1.1, 2.3, LONG_S, SEED), on_off_in_one_piece(RATE, 4e3, 1.1, 2.3, LONG_S)),
        (processes.ramp(RATE, 3e3, LONG_S, SEED), ramp_in_one_piece(RATE, 3e3, LONG_S)),
        (processes.diurnal(RATE, 0.8, 7.7, LONG_S, SEED), diurnal_in_one_piece(RATE, 0.8, 7.7, LONG_S)),
        (processes.diurnal(5e4, 1.0, 900.0, LONG_S, SEED), diurnal_in_one_piece(5e4, 1.0, 900.0, LONG_S)),
        (processes.diurnal(3.0, 1.0, 60.0, 9e3, SEED), diurnal_in_one_piece(3.0, 1.0, 60.0, 9e3)),
    ],
)
def test_a_schedule_in_blocks_is_the_one_that_is_computed_in_one_piece(schedule, times_s):
    expected = np.rint(times_s * 1e9).astype(np.int64)
    assert len(list(schedule.blocks())) > 1
    assert schedule.whole().tolist() == expected.tolist()


@pytest.mark.parametrize("name", PROCESSES[:-1])
def test_a_day_at_a_thousand_requests_a_second_takes_the_memory_of_a_block(name):
    options = SimpleNamespace(
        rate=1_000.0, duration=86_400.0, seed=3, cv=3.0, peak_rate=2_000.0, on=2.0, off=4.0, spike_at=10.0,
        spike_width=2.0, amplitude=0.8, period=60.0, mmpp_rates="500,2000", mmpp_dwells="10,5",
    )  # fmt: skip
    process = ARRIVALS[name]
    tracemalloc.start()
    schedule = process.schedule(options, process.parameters(options), options.duration).deal(3, 16)
    first = next(schedule.blocks())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(first) <= BLOCK_ARRIVALS
    assert schedule.expected * 16 > 80e6 / (1 if name != "mmpp" else 2)
    # the pieces of on-off and mmpp are held, 8 bytes each a few times over; 86 million arrivals would be 690 MB
    assert peak_bytes < 10e6


@given(count=st.integers(0, 60), sizes=st.lists(st.integers(1, 9), min_size=1), workers=st.integers(1, 9))
def test_blocks_of_any_size_are_dealt_and_regrouped_without_a_loss(count, sizes, workers):
    moments = np.arange(count, dtype=np.int64) * 7
    cuts = np.cumsum(sizes)[np.cumsum(sizes) < count]
    schedule = BlockSchedule(lambda: iter(np.split(moments, cuts)), count)
    dealt = [schedule.deal(worker, workers).whole().tolist() for worker in range(workers)]
    assert dealt == [moments[worker::workers].tolist() for worker in range(workers)]
    regular = [block.tolist() for block in regrouped(schedule.blocks(), 4)]
    assert [len(block) for block in regular] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert [moment for block in regular for moment in block] == moments.tolist()


@given(counts=st.lists(st.integers(0, 60), max_size=8))
def test_the_measured_among_the_first_arrivals_are_counted_as_far_as_they_are_asked_for(counts):
    moments = np.arange(50, dtype=np.int64)
    measured = MeasuredTime(np.array([5, 20]), np.array([11, 45]))
    among = MeasuredAmong(BlockSchedule(lambda: iter(np.split(moments, [3, 9, 21])), 50), measured)
    for count in sorted(counts):
        assert among.first(count) == measured.contains(moments[:count]).sum()


def test_a_warm_up_goes_before_a_schedule_in_blocks_and_before_a_recorded_one():
    warmup, moments = processes.constant(10.0, 0.3), np.array([0, 5, 9], np.int64)
    for schedule in (RecordedSchedule(moments), BlockSchedule(lambda: iter(np.split(moments, [1])), 3)):
        both = schedule.after(warmup, 1_000_000_000)
        assert both.whole().tolist() == [0, 100_000_000, 200_000_000, 1_000_000_000, 1_000_000_005, 1_000_000_009]
        assert both.expected == 6
        assert both.deal(1, 4).whole().tolist() == [100_000_000, 1_000_000_009]


def test_statistics_of_blocks_are_those_of_the_whole_schedule():
    schedule = processes.gamma(700.0, 2.0, 60.0, 5)
    whole = schedule.whole()
    gaps, counts = np.diff(whole), np.bincount(whole // 1_000_000_000, minlength=60)
    found = processes.statistics_of(schedule, 60.0)
    assert found.arrivals == len(whole)
    assert found.cv == pytest.approx(gaps.std() / gaps.mean(), rel=1e-9)
    assert found.dispersion == pytest.approx(counts.var(ddof=1) / counts.mean(), rel=1e-12)
    assert found.peak_to_mean == pytest.approx(counts.max() / counts.mean(), rel=1e-12)
