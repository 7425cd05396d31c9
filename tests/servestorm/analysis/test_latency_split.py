"""Where the time went: both servers' metrics on one model, and parts that add up to the mean latency."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.samples.recorder import SCHEMA
from servestorm.analysis.latency_split import split, split_means
from servestorm.analysis.server_times import ServerTimes
from servestorm.errors import StudyError
from servestorm.rundir.samples import MeanLatency, read_mean_latency


def sample(scheduled_ms, sent_ms, done_ms, outcome="ok", warmup=False):
    row = dict.fromkeys(SCHEMA.names, 0) | {"outcome": outcome, "correct": True, "warmup": warmup}
    times = {"scheduled_ns": scheduled_ms, "sent_ns": sent_ms, "done_ns": done_ms}
    return row | {name: None if ms is None else 10**15 + round(ms * 1e6) for name, ms in times.items()}


@pytest.fixture
def samples(tmp_path):
    def write(*rows):
        pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), tmp_path / "samples.parquet")
        return tmp_path / "samples.parquet"

    return write


FULL = ServerTimes(100, 7.0, 1.0, 0.5, 4.0, 0.25)


def test_the_parts_add_up_to_the_mean_latency(samples):
    rows = [sample(0, 0.5, 10.5), sample(5, 6.5, 14.5), sample(0, 90, 99, warmup=True)]
    rows += [sample(20, 20, 500, outcome="timeout"), sample(30, None, None, outcome="dropped")]
    found = split(samples(*rows), FULL)
    assert found.requests == 2 and found.mean_ms == pytest.approx(10.0)
    parts = {part.part: part.ms for part in found.parts}
    assert parts == pytest.approx(
        {
            "generator lag": 1.0,
            "client and network": 2.0,
            "server queue": 1.0,
            "pre-processing": 0.5,
            "inference": 4.0,
            "post-processing": 0.25,
            "rest of the server": 1.25,
        }
    )
    assert sum(parts.values()) == pytest.approx(found.mean_ms) and found.notes == ()


def test_what_a_server_does_not_expose_is_none_and_lies_in_the_rest():
    found = split_means(MeanLatency(5, 1.0, 9.0), ServerTimes(100, 7.0, None, None, 4.0, None, ("said",)))
    parts = {part.part: part.ms for part in found.parts}
    assert parts["server queue"] is None and parts["rest of the server"] == 3.0
    assert found.notes == ("said",)
    assert sum(ms for ms in parts.values() if ms is not None) == found.mean_ms == 10.0


def test_without_the_servers_total_client_network_and_rest_are_one_part():
    found = split_means(MeanLatency(5, 1.0, 9.0), ServerTimes(100, None, 2.0, None, 3.0, None))
    parts = {part.part: part.ms for part in found.parts if part.ms is not None}
    assert parts == {
        "generator lag": 1.0,
        "client, network and rest of the server": 4.0,
        "server queue": 2.0,
        "inference": 3.0,
    }


def test_a_part_below_zero_is_shown_and_told():
    found = split_means(MeanLatency(5, 0.0, 6.0), FULL)
    assert {part.part: part.ms for part in found.parts}["client and network"] == -1.0
    assert found.notes[0].startswith("Client and network came out below zero")


def test_without_a_right_answer_there_is_no_split(samples):
    assert split(samples(sample(0, 1, 2, outcome="timeout")), FULL) is None
    assert split(samples(), FULL) is None


def test_means_keep_nanoseconds_on_a_machine_that_is_up_for_years(samples):
    assert read_mean_latency(samples(sample(0, 0.000001, 0.000003))) == MeanLatency(1, 1e-6, 2e-6)


def test_broken_samples_are_named(tmp_path):
    (tmp_path / "samples.parquet").write_bytes(b"")
    with pytest.raises(StudyError, match="no whole file of samples"):
        split(tmp_path / "samples.parquet", FULL)
