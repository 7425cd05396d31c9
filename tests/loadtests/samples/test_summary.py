"""The summary counts what happened, quotes only what the samples carry, and says when not to believe it."""

import numpy as np
import pytest

from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.generator import jobs
from loadtests.generator.load import ROW
from loadtests.samples.prometheus import BOUNDS_S, GeneratorMetrics
from loadtests.samples.recorder import SampleWriter
from loadtests.samples.summary import GaveUp, LoadFacts, distribution, late_sentence, summarise
from loadtests.samples.validity import (
    MOST_MOVED,
    figure_counts,
    generator_at_fault,
    moved_by,
    percentile_counts,
    samples_needed,
    servers_overloaded,
)

SETTINGS = {
    "loop": "open",
    "engine": "http",
    "protocol": "rest",
    "model": "m",
    "payload": "image",
    "images_per_request": 2,
    "arrivals": {},
    "rate": 100.0,
    "duration_s": 10.0,
    "warmup_s": 1.0,
    "timeout_s": 1.0,
    "max_in_flight": 10,
    "connections": 10,
    "closed_loop": 0,
    "seed": 0,
    "endpoints": ["http://h"],
    "started_at": "2026-01-01T00:00:00+00:00",
}
START, WARM = 5_000_000_000, 6_000_000_000
SECOND = 1_000_000_000
MEASURED = MeasuredTime.since(WARM)


def rows(count=1000, *, latency_ms=10.0, lag_ms=0.05, outcome=jobs.OK, begin=WARM):
    table = np.zeros((count, len(ROW)), np.int64)
    table[:, 0] = begin + np.arange(count) * 10_000_000
    table[:, 1] = table[:, 0] + int(lag_ms * 1e6)
    table[:, 2] = table[:, 3] = table[:, 0] + int(latency_ms * 1e6)
    table[:, 4] = outcome
    table[:, 10] = jobs.UNCHECKED
    if outcome == jobs.DROPPED:
        table[:, 1:4] = jobs.NEVER
    return table


def summary_of(tmp_path, *tables, measured=MEASURED, **facts):
    writer = SampleWriter(tmp_path, 2)
    for table in tables:
        writer.add(table)
        writer.flush(measured)
    known = {"cpu_share": 0.1, "error_details": {}, "answers": "unchecked", "ended_ns": WARM + 10 * SECOND, **facts}
    settings = {**SETTINGS, **known.pop("settings", {})}
    return summarise(writer.close(measured), LoadFacts(settings, measured, **known))


def test_warm_up_counts_nowhere(tmp_path):
    summary = summary_of(tmp_path, rows(100, latency_ms=900, begin=START), rows(1000))
    assert (summary.scheduled, summary.ok) == (1000, 1000)
    assert summary.latency_ms.max == pytest.approx(10)
    assert summary.valid, summary.reasons


def test_rates_and_images_are_told_of_the_measured_time(tmp_path):
    summary = summary_of(tmp_path, rows())
    assert summary.offered_rate == pytest.approx(100)
    assert summary.achieved_rate == pytest.approx(100)
    assert summary.requests_per_s == pytest.approx(100, rel=0.01)
    assert summary.images_per_s == pytest.approx(200, rel=0.01)
    assert summary.cpu_share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("tables", "facts", "reason"),
    [
        ([rows(990), rows(10, outcome=jobs.DROPPED)], {}, "10 arrivals were dropped"),
        ([rows()], {"cpu_share": 0.9}, "the generator was busy: 90% of a core"),
        ([rows(980), rows(20, outcome=jobs.TIMEOUT)], {}, "20 of 1000 requests failed"),
        ([rows(999), rows(1, outcome=jobs.WRONG_ANSWER)], {}, "1 answers were wrong"),
        ([rows(outcome=jobs.TIMEOUT)], {}, "no right answer came"),
        ([rows()], {"faults": ["the load was stopped before its end"]}, "stopped before its end"),
    ],
)
def test_a_load_not_to_be_believed_is_invalid_and_says_why(tables, facts, reason, tmp_path):
    summary = summary_of(tmp_path, *tables, **facts)
    assert not summary.valid
    assert any(reason in text for text in summary.reasons)


@pytest.mark.parametrize(
    ("tables", "facts", "overloaded"),
    [
        ([rows(900), rows(100, outcome=jobs.DROPPED)], {}, True),
        ([rows(980), rows(20, outcome=jobs.TIMEOUT)], {}, True),
        ([rows(980), rows(20, outcome=jobs.TIMEOUT)], {"error_details": {"timeout": 20}}, True),
        ([rows(980, lag_ms=3), rows(20, outcome=jobs.TIMEOUT)], {}, True),
        ([rows(980), rows(20, outcome=jobs.TIMEOUT)], {"cpu_share": 0.9}, False),
        ([rows(20, outcome=jobs.TIMEOUT)], {"gave_up": GaveUp(1.0, 20)}, True),
        ([rows(20, outcome=jobs.TIMEOUT)], {"gave_up": GaveUp(1.0, 20), "cpu_share": 0.9}, False),
        ([rows(980), rows(20, outcome=jobs.WRONG_ANSWER)], {}, False),
        ([rows(outcome=jobs.TIMEOUT)], {}, False),
        ([rows(980), rows(20, outcome=jobs.TIMEOUT)], {"faults": ["the load was stopped before its end"]}, False),
        ([rows()], {}, False),
    ],
)
def test_a_load_that_only_the_servers_could_not_take_is_told_from_one_not_to_be_believed(
    tables, facts, overloaded, tmp_path
):
    assert servers_overloaded(summary_of(tmp_path, *tables, **facts).reasons) == overloaded


def test_a_lag_that_is_small_against_the_latency_is_allowed(tmp_path):
    summary = summary_of(tmp_path, rows(latency_ms=300, lag_ms=2))
    assert summary.valid and summary.percentile_counts
    assert summary.latency_ms.p50 == pytest.approx(300)
    readings = summary.figures["p50"]
    assert (readings.scheduled_ms, readings.sent_ms) == pytest.approx((300, 298))
    assert (readings.slices, readings.slices_used, readings.counts) == (10, 10, True)


def test_late_sends_make_figures_invalid_and_not_the_load(tmp_path):
    summary = summary_of(tmp_path, rows(lag_ms=3))
    assert (summary.valid, summary.reasons) == (True, [])
    assert summary.percentile_counts is False
    assert summary.invalid_figures == ["p50", "p90", "p95", "p99", "mean"]
    assert summary.latency_ms.p50 is summary.latency_ms.p99 is summary.latency_ms.mean is None
    assert summary.figures["p50"].scheduled_ms == pytest.approx(10)
    assert summary.figures["p999"].counts is None
    assert late_sentence(summary).startswith(
        "the generator sent late, so no percentile counts, and these are INVALID: p50 (moved by 42.9%, over 1.5%)"
    )


def test_a_hiccup_costs_only_the_second_in_which_it_fell(tmp_path):
    table = rows()
    hiccup = slice(300, 400)
    table[hiccup, 1] += 50_000_000
    table[hiccup, 2:4] += 50_000_000
    summary = summary_of(tmp_path, table)
    assert summary.invalid_figures == []
    assert summary.latency_ms.p99 == pytest.approx(10)
    used = {name: summary.figures[name].slices_used for name in MOST_MOVED}
    assert used == {"p50": 10, "p90": 10, "p95": 9, "p99": 9, "p999": 10, "mean": 9}
    assert summary.latency_ms.max == pytest.approx(60)


def test_the_lag_moves_a_figure_by_a_share_of_its_reading_from_the_send():
    assert moved_by(10.2, 10.0) == moved_by(9.8, 10.0) == pytest.approx(0.02)
    assert (moved_by(0.0, 0.0), moved_by(1.0, 0.0)) == (0.0, float("inf"))
    assert all(figure_counts(name, 1 + most - 1e-9, 1.0) for name, most in MOST_MOVED.items())
    assert not any(figure_counts(name, 1 + most + 1e-9, 1.0) for name, most in MOST_MOVED.items())


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"p50": True, "p99": False, "mean": False}, True),
        ({"p50": False, "p99": False, "mean": True}, False),
        ({"p50": False, "p99": None}, False),
        ({"p50": None, "p99": None, "mean": False}, True),
        ({}, True),
    ],
)
def test_a_percentile_counts_unless_the_lag_took_all_that_the_samples_are_enough_for(counts, expected):
    assert percentile_counts(counts) == expected


BUSY, OVERLOADED = "the generator was busy: 90% of a core, over 80%", "20 of 1000 requests failed"


@pytest.mark.parametrize(
    ("reasons", "counts", "expected"),
    [
        ([], True, False),
        ([], False, True),
        ([BUSY], True, True),
        ([BUSY], False, True),
        ([BUSY, OVERLOADED], True, False),
        ([OVERLOADED], False, False),
    ],
)
def test_another_attempt_is_as_good_where_only_the_generator_was_at_fault(reasons, counts, expected):
    assert generator_at_fault(reasons, percentile_counts=counts) == expected


def test_a_load_that_was_given_up_is_an_overload_and_its_rates_are_of_its_time(tmp_path):
    facts = {"ended_ns": WARM + 2 * SECOND, "gave_up": GaveUp(3.0, 50)}
    summary = summary_of(tmp_path, rows(150), rows(50, outcome=jobs.TIMEOUT, begin=WARM + 3 * SECOND // 2), **facts)
    assert (summary.gave_up, summary.valid) == (True, False)
    assert summary.reasons[0] == "the load was given up after 3.0 s: 50 requests were under way at once"
    assert servers_overloaded(summary.reasons) and not generator_at_fault(summary.reasons)
    assert summary.offered_rate == summary.achieved_rate == pytest.approx(100)


def test_a_load_that_was_given_up_in_its_warm_up_is_an_overload(tmp_path):
    summary = summary_of(tmp_path, rows(50, begin=START), ended_ns=START, gave_up=GaveUp(0.5, 50))
    assert (summary.scheduled, summary.latency_ms.p50) == (0, None)
    assert servers_overloaded(summary.reasons)


TURNS = MeasuredTime(WARM + np.array([0, 7]) * SECOND, WARM + np.array([2, 10]) * SECOND)
"""Two turns of 2 and 3 seconds."""


def test_the_figures_of_a_load_in_turns_are_of_its_turns(tmp_path):
    waiting = slice(200, 700)
    table = rows()
    table[waiting, 3] += 900_000_000
    summary = summary_of(tmp_path, table, measured=TURNS, settings={"slices": 2, "duration_s": 5.0})
    assert (summary.scheduled, summary.sent, summary.ok, summary.slices) == (500, 500, 500, 2)
    assert summary.offered_rate == summary.achieved_rate == pytest.approx(100)
    assert summary.requests_per_s == pytest.approx(100, rel=0.01)
    assert summary.latency_ms.max == pytest.approx(10)
    assert summary.figures["p50"].slices == summary.figures["p50"].slices_used == 2
    assert summary.valid, summary.reasons


def test_a_late_turn_is_left_out_as_a_whole(tmp_path):
    table = rows()
    table[800:1000, 1:4] += 9_000_000
    summary = summary_of(tmp_path, table, measured=TURNS, settings={"slices": 2})
    assert summary.figures["p95"].slices_used == 1
    assert summary.figures["p95"].counts
    assert summary.latency_ms.p95 == pytest.approx(10)


def test_sends_that_overhang_each_turn_lower_the_achieved_rate(tmp_path):
    table = rows(latency_ms=900)
    table[:, 1] += 500_000_000
    summary = summary_of(tmp_path, table, measured=TURNS, settings={"slices": 2})
    assert summary.achieved_rate == pytest.approx(500 / (5 + 2 * 0.4901), rel=1e-3)


def test_sends_that_take_longer_than_the_schedule_are_an_achieved_rate_too_low(tmp_path):
    late = rows(1000, latency_ms=5000)
    late[:, 1] = late[:, 0] + np.linspace(0, 2e9, 1000).astype(np.int64)
    assert any("off the offered" in reason for reason in summary_of(tmp_path, late).reasons)


CLOSED = {"loop": "closed", "rate": None, "closed_loop": 4}


def slot(cycle_ms, busy_ms, outcome=jobs.OK, *, begin=START, seconds=11):
    """One slot of a closed loop: a request of `busy_ms` every `cycle_ms`, warm-up included."""
    table = rows(int(1000 * seconds / cycle_ms), latency_ms=busy_ms, lag_ms=0, outcome=outcome)
    begin_ns = begin + np.arange(len(table)) * int(cycle_ms * 1e6)
    table[:, :4] += (begin_ns - table[:, 0])[:, None]
    return table


def test_a_closed_loop_whose_slots_never_rest_has_its_number_under_way(tmp_path):
    summary = summary_of(tmp_path, *[slot(20, 20) for _ in range(4)], settings=CLOSED)
    assert summary.mean_in_flight == pytest.approx(4)
    assert summary.rested_s == pytest.approx(0)
    assert summary.valid, summary.reasons


def test_a_slot_that_rests_after_its_refusals_is_counted_and_the_load_says_how_few_were_under_way(tmp_path):
    """One slot of four is refused after 2 ms and rests 10: it is under way for a sixth of the 10 s that count."""
    refused = slot(12, 2, jobs.HTTP_ERROR, seconds=10.98)
    summary = summary_of(tmp_path, *[slot(20, 20) for _ in range(3)], refused, settings=CLOSED)
    assert summary.mean_in_flight == pytest.approx(3 + 1 / 6, abs=0.01)
    assert summary.rested_s == pytest.approx(10 * 5 / 6, abs=0.05)
    (reason,) = [text for text in summary.reasons if "closed loop" in text]
    assert reason.startswith("only 3.2 of 4 requests of the closed loop were under way")
    assert "rests at least 10 ms" in reason
    assert servers_overloaded(summary.reasons)


def test_a_server_as_fast_as_the_generators_own_turn_is_no_resting_slot(tmp_path):
    settings = {**CLOSED, "closed_loop": 1}
    summary = summary_of(tmp_path, slot(1, 0.9), settings=settings)
    assert summary.mean_in_flight == pytest.approx(0.9, abs=0.01)
    assert summary.valid, summary.reasons
    too_few = summary_of(tmp_path, slot(1, 0.9), settings={**settings, "connections": 0})
    assert not too_few.valid
    shared = summary_of(tmp_path, slot(1, 0.9), settings={**settings, "connections": 0, "protocol": "grpc"})
    assert shared.valid, shared.reasons


def test_an_open_loop_has_no_slots(tmp_path):
    summary = summary_of(tmp_path, rows())
    assert (summary.mean_in_flight, summary.rested_s) == (None, None)


def test_a_closed_loop_has_no_schedule_that_the_generator_could_miss(tmp_path):
    summary = summary_of(tmp_path, rows(lag_ms=3), settings={**CLOSED, "closed_loop": 1})
    assert summary.invalid_figures == []
    assert summary.latency_ms.p50 == pytest.approx(10)


def test_percentiles_are_exact_by_nearest_rank():
    found = distribution(np.arange(1, 10_001, dtype=np.int64) * 1_000_000)
    assert (found.p50, found.p90, found.p99, found.p999, found.max) == (5000, 9000, 9900, 9990, 10_000)
    assert found.mean == pytest.approx(5000.5)


def test_a_percentile_is_left_out_until_two_samples_would_lie_above_it():
    assert [samples_needed(q) for q in (0.5, 0.9, 0.99)] == [11, 64, 662]
    few, enough = (distribution(np.arange(n, dtype=np.int64)) for n in (661, 662))
    assert few.p99 is None
    assert enough.p99 is not None
    assert distribution(np.empty(0, np.int64)).mean is None


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    from loadtests.errors import LoadEnvironmentError

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    writer = SampleWriter(tmp_path, 1)
    monkeypatch.setattr("loadtests.samples.recorder.pq.write_table", full)
    writer.add(rows(1))
    with pytest.raises(LoadEnvironmentError, match=r"No space left on device; free space"):
        writer.flush(MEASURED)


def test_histogram_percentiles_are_within_two_percent():
    metrics = GeneratorMetrics(lambda: 0, lambda: 0)
    table = rows(20_000)
    latencies = np.random.default_rng(1).lognormal(np.log(0.01), 0.8, 20_000)
    table[:, 3] = table[:, 0] + (latencies * 1e9).astype(np.int64)
    metrics.feed(table)
    family = next(f for f in metrics.collect() if f.name == "servestorm_latency_seconds")
    totals = np.array([s.value for s in family.samples if s.name.endswith("_bucket")])
    above = int(np.searchsorted(totals, 0.99 * 20_000))
    share = (0.99 * 20_000 - totals[above - 1]) / (totals[above] - totals[above - 1])
    found = BOUNDS_S[above - 1] + share * (BOUNDS_S[above] - BOUNDS_S[above - 1])
    assert found == pytest.approx(np.quantile(latencies, 0.99), rel=0.02)


def test_the_most_frequent_cause_of_failures_is_named(tmp_path):
    details = {
        "dropped (too many in flight)": 99,
        "timeout": 3,
        "the reply has outputs a, b, but not 'probabilities'": 17,
    }
    summary = summary_of(tmp_path, rows(980), rows(20, outcome=jobs.BAD_REPLY), error_details=details)
    (reason,) = summary.reasons
    assert reason == "20 of 1000 requests failed, most often: the reply has outputs a, b, but not 'probabilities'"


REFUSED = "refused authorisation (HTTP 401)"


def test_refused_authorisation_is_a_reason_of_its_own_with_its_remedy_and_no_overload(tmp_path):
    tables = rows(600), rows(400, outcome=jobs.HTTP_ERROR)
    summary = summary_of(tmp_path, *tables, error_details={REFUSED: 300, "HTTP 503": 100})
    named, others = summary.reasons
    assert named.startswith(f"300 of 1000 requests were {REFUSED}: send the endpoint's token, such as --header ")
    assert others == "100 of 1000 requests failed, most often: HTTP 503"
    assert not servers_overloaded(summary.reasons)
    assert not generator_at_fault(summary.reasons)


def test_a_few_refusals_among_many_answers_are_as_few_failures(tmp_path):
    summary = summary_of(tmp_path, rows(995), rows(5, outcome=jobs.HTTP_ERROR), error_details={REFUSED: 5})
    assert summary.valid, summary.reasons
