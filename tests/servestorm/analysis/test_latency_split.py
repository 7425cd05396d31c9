"""Where the time went: both servers' metrics on one model, and parts that add up to the mean latency."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.samples.recorder import SCHEMA
from servestorm.analysis.latency_split import split, split_means
from servestorm.analysis.server_times import ServerTimes, server_times
from servestorm.errors import StudyError
from servestorm.rundir.metrics_table import Point, table_bytes
from servestorm.rundir.samples import MeanLatency, read_mean_latency

PREDICT = '{"API": "Predict", "entrypoint": "REST", "model_name": "cnn"}'
RUNTIME = '{"API": "Predict", "runtime": "TF1"}'
STATUS = '{"API": "Status", "entrypoint": "REST"}'
TF = ":tensorflow:serving:"


@pytest.fixture
def page(tmp_path):
    """Writes metrics.parquet from {metric: [values, one a second]}; a metric may come with labels and a replica."""

    def write(readings, replicas=1):
        points = []
        for key, values in readings.items():
            metric, labels, replica = (*key, 0)[:3] if isinstance(key, tuple) else (key, "{}", 0)
            points += [Point(1000 * t, replica, metric, labels, v) for t, v in enumerate(values) if v is not None]
        points += [Point(0, replica, "up_since", "{}", 1.0) for replica in range(replicas)]
        (tmp_path / "metrics.parquet").write_bytes(table_bytes(points))
        return tmp_path / "metrics.parquet"

    return write


TORCHSERVE = {
    "ts_inference_requests_total": [10, 60, 110],
    "ts_inference_latency_microseconds": [90_000, 590_000, 1_090_000],
    "ts_queue_latency_microseconds": [0, 100_000, 200_000],
    "HandledRequests": [10, 60, 100],
    "PreprocessTime": [5, 55, 95],
    "InferenceTime": [50, 250, 410],
    "PostprocessTime": [1, 11, 19],
}


def test_torchserve_tells_every_part_as_means_over_the_requests_between_the_first_and_the_last_reading(page):
    found = server_times("torchserve", page(TORCHSERVE))
    assert found.requests == 100
    assert (found.total_ms, found.queue_ms) == pytest.approx((10.0, 2.0))
    # the handler tells its sums a little later than the front end, so it has a count of its own
    assert (found.preprocess_ms, found.inference_ms, found.postprocess_ms) == pytest.approx((1.0, 4.0, 0.2))
    assert found.notes == ()


def test_counters_are_the_same_whichever_scraper_read_them(page):
    renamed = {f"{name.removesuffix('_total')}_total": values for name, values in TORCHSERVE.items()}
    assert server_times("torchserve", page(renamed)) == server_times("torchserve", page(TORCHSERVE))


def test_only_readings_of_the_load_count(page):
    found = server_times("torchserve", page(TORCHSERVE), since_unix_ms=1000)
    assert found.requests == 50 and found.total_ms == pytest.approx(10.0)
    assert server_times("torchserve", page(TORCHSERVE), until_unix_ms=1000).requests == 50


def test_over_grpc_torchserve_tells_only_a_coarse_queue(page):
    found = server_times("torchserve", page({"ts_inference_requests_total": [0, 50, 90], "QueueTime": [9.0, 2.0, 4.0]}))
    assert found.total_ms is None and found.queue_ms == 3.0
    assert "Over gRPC" in found.notes[0]


def test_a_foreign_handler_tells_its_whole_time_only(page):
    readings = {key: TORCHSERVE[key] for key in list(TORCHSERVE)[:3]} | {"PredictionTime": [3.0, 5.0, 4.0]}
    found = server_times("torchserve", page(readings))
    assert (found.preprocess_ms, found.inference_ms, found.postprocess_ms) == (None, 4.5, None)
    assert "whole time" in found.notes[0]


def tensorflow(queued=True):
    readings = {
        (f"{TF}request_latency_sum", PREDICT): [0, 500_000],
        (f"{TF}request_latency_count", PREDICT): [0, 100],
        (f"{TF}request_latency_sum", STATUS): [0, 9e9],
        (f"{TF}request_latency_count", STATUS): [0, 9],
        (f"{TF}runtime_latency_sum", RUNTIME): [0, 400_000],
        (f"{TF}runtime_latency_count", RUNTIME): [0, 100],
    }
    if queued:
        readings[f"{TF}batching_session:queuing_latency_sum"] = [0, 50_000]
        readings[f"{TF}batching_session:queuing_latency_count"] = [0, 50]
    return readings


def test_tensorflow_serving_counts_its_queue_into_the_runtime_and_the_embedded_server_does_not(page):
    real, ours = (server_times(engine, page(tensorflow())) for engine in ("tfserving", "savedmodel"))
    assert real.requests == ours.requests == 100
    assert real.total_ms == ours.total_ms == 5.0
    assert real.queue_ms == ours.queue_ms == 1.0
    assert (real.inference_ms, ours.inference_ms) == (3.0, 4.0)
    assert real.preprocess_ms is None and real.postprocess_ms is None


def test_without_batching_the_tensorflow_servers_tell_no_queue(page):
    found = server_times("savedmodel", page(tensorflow(queued=False)))
    assert found.queue_ms is None and "Without batching" in found.notes[1]


def test_replicas_add_up_and_a_restarted_one_counts_from_nothing(page):
    readings = {
        ("ts_inference_requests_total", "{}", 0): [100, 120, 5],
        ("ts_inference_requests_total", "{}", 1): [0, 10, 30],
        ("ts_inference_latency_microseconds", "{}", 0): [9e9, 9e9 + 20_000, 5_000],
        ("ts_inference_latency_microseconds", "{}", 1): [0, 10_000, 30_000],
    }
    found = server_times("torchserve", page(readings, replicas=2))
    assert found.requests == 20 + 5 + 30
    assert found.total_ms == pytest.approx(1.0)


def test_a_counter_that_appears_with_its_first_request_counts_from_nothing(page):
    found = server_times("torchserve", page({"ts_inference_requests_total": [None, 40, 70]}))
    assert found.requests == 70


def test_metrics_that_tell_nothing_give_nothing(page):
    for engine in ("torchserve", "savedmodel", "tfserving"):
        found = server_times(engine, page({}))
        assert (found.requests, found.total_ms, found.inference_ms) == (None, None, None)
        assert found.notes == ("The server's own metrics tell of no request.",)


def test_broken_metrics_are_named(tmp_path):
    (tmp_path / "metrics.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(StudyError, match="no whole file of metrics"):
        server_times("torchserve", tmp_path / "metrics.parquet")


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
