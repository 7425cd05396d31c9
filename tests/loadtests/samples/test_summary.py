"""The summary counts what happened, quotes only what the samples carry, and says when not to believe it."""

import numpy as np
import pytest

from loadtests.generator import jobs
from loadtests.generator.load import ROW
from loadtests.samples.prometheus import BOUNDS_S, GeneratorMetrics
from loadtests.samples.recorder import SampleWriter
from loadtests.samples.summary import LoadFacts, distribution, summarise
from loadtests.samples.validity import samples_needed, servers_overloaded

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


def rows(count=1000, *, latency_ms=10.0, lag_ms=0.1, outcome=jobs.OK, begin=WARM):
    table = np.zeros((count, len(ROW)), np.int64)
    table[:, 0] = begin + np.arange(count) * 10_000_000
    table[:, 1] = table[:, 0] + int(lag_ms * 1e6)
    table[:, 2] = table[:, 3] = table[:, 0] + int(latency_ms * 1e6)
    table[:, 4] = outcome
    table[:, 10] = jobs.UNCHECKED
    if outcome == jobs.DROPPED:
        table[:, 1:4] = jobs.NEVER
    return table


def summary_of(tmp_path, *tables, **facts):
    writer = SampleWriter(tmp_path, 2)
    for table in tables:
        writer.add(table)
        writer.flush(WARM)
    known = {"cpu_share": 0.1, "error_details": {}, "answers": "unchecked", **facts}
    settings = {**SETTINGS, **known.pop("settings", {})}
    return summarise(writer.close(WARM), LoadFacts(settings, WARM, WARM + 10_000_000_000, **known))


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
        ([rows(lag_ms=3)], {}, "the generator sent late"),
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
        ([rows(980, lag_ms=3), rows(20, outcome=jobs.TIMEOUT)], {}, False),
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
    assert summary_of(tmp_path, rows(latency_ms=100, lag_ms=4)).valid


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
        writer.flush(WARM)


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
