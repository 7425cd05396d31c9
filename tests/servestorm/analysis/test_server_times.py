"""The servers' own times on one model: each mean over the requests whose time is in its sum."""

from __future__ import annotations

import pytest

from servestorm.analysis.server_times import server_times
from servestorm.errors import StudyError
from servestorm.rundir.metrics_table import Point, table_bytes

PREDICT = '{"API": "Predict", "entrypoint": "REST", "model_name": "cnn"}'
RUNTIME = '{"API": "Predict", "runtime": "TF1"}'
PROBE = '{"API": "", "entrypoint": "REST", "model_name": "cnn"}'
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


def test_a_mean_of_torchserve_is_over_the_requests_whose_time_is_in_its_sum(page):
    """Half of 20 requests raise or are refused: counted, answered with 503, without a time. The others take 508 ms."""
    readings = {
        "ts_inference_requests_total": [4, 24],
        "ts_inference_latency_microseconds": [4 * 508_000, 14 * 508_000],
        "ts_queue_latency_microseconds": [0, 10 * 100_000],
        "Requests5XX": [None, 10],
    }
    found = server_times("torchserve", page(readings))
    assert (found.requests, found.total_ms, found.queue_ms) == pytest.approx((10, 508.0, 100.0))
    assert "adds no time of a request that it refused or whose handler raised" in found.notes[0]


def test_a_status_that_torchserves_handler_gave_counts_as_an_answer(page):
    found = server_times("torchserve", page(TORCHSERVE | {"Requests4XX": [0, 20, 40]}))
    assert (found.requests, found.notes) == (100, ())
    assert found.total_ms == pytest.approx(10.0)


def test_where_every_request_failed_torchserve_tells_no_mean(page):
    readings = {
        "ts_inference_requests_total": [0, 10],
        "ts_inference_latency_microseconds": [0, 5],
        "Requests5XX": [0, 10],
    }
    assert server_times("torchserve", page(readings)).total_ms is None


def tensorflow(queued=True, probe=PROBE):
    """100 requests of 5 ms, of which 4 ms were in the runtime, of which 1 ms was the wait for a batch; and 9 probes."""
    readings = {
        (f"{TF}request_latency_sum", PREDICT): [0, 500_000],
        (f"{TF}request_latency_count", PREDICT): [0, 100],
        (f"{TF}request_latency_sum", probe): [0, 9e9],
        (f"{TF}request_latency_count", probe): [0, 9],
        (f"{TF}runtime_latency_sum", RUNTIME): [0, 400_000],
        (f"{TF}runtime_latency_count", RUNTIME): [0, 100],
    }
    if queued:
        readings[f"{TF}batching_session:queuing_latency_sum"] = [0, 100_000]
        readings[f"{TF}batching_session:queuing_latency_count"] = [0, 100]
    return readings


@pytest.mark.parametrize("engine", ["tfserving", "savedmodel"])
def test_the_tensorflow_servers_count_the_wait_for_a_batch_into_the_runtime_and_probes_beside_it(engine, page):
    found = server_times(engine, page(tensorflow()))
    assert found.requests == 100
    assert found.total_ms == 5.0
    assert (found.queue_ms, found.inference_ms) == (1.0, 3.0)
    assert found.preprocess_ms is None and found.postprocess_ms is None
    assert "counts the wait for a batch into its runtime" in found.notes[1]


def test_a_prometheus_that_drops_empty_labels_tells_the_same(page):
    dropped = '{"entrypoint": "REST", "model_name": "cnn"}'
    assert server_times("tfserving", page(tensorflow(probe=dropped))) == server_times("tfserving", page(tensorflow()))


@pytest.mark.parametrize("api", ["Status", "Metadata"])
def test_a_run_of_a_savedmodel_server_that_called_the_wait_inference_tells_neither(api, page):
    """It labelled what TensorFlow Serving leaves without a label: that is how its runs are known."""
    found = server_times("savedmodel", page(tensorflow(probe=f'{{"API": "{api}", "entrypoint": "REST"}}')))
    assert (found.requests, found.total_ms) == (100, 5.0)
    assert (found.queue_ms, found.inference_ms) == (None, None)
    assert "run the study again" in found.notes[1]
    unbatched = tensorflow(queued=False, probe=f'{{"API": "{api}", "entrypoint": "REST"}}')
    assert server_times("savedmodel", page(unbatched)).inference_ms == 4.0


@pytest.mark.parametrize(
    ("served_us", "total_ms", "note"),
    [(0, 5.0, None), (9e8, 5.0, None), (4e9, 5.0, "may be off by more than 5 %"), (1e11, None, "lost")],
)
def test_a_server_that_has_served_for_long_tells_how_little_its_six_digits_show(served_us, total_ms, note, page):
    """Its sum is written with six digits: at 4,000 s the last one is worth 10 ms, over 30 requests 0.33 ms of 5 ms."""
    sums = [float(f"{served_us + us:.6g}") for us in (0, 150_000)]
    readings = {(f"{TF}request_latency_sum", PREDICT): sums, (f"{TF}request_latency_count", PREDICT): [7, 37]}
    found = server_times("tfserving", page(readings))
    assert found.total_ms == (None if total_ms is None else pytest.approx(total_ms, rel=0.07))
    coarse = [text for text in found.notes if "six digits" in text]
    assert len(coarse) == (note is not None) and all(note in text for text in coarse)


def test_a_server_that_writes_all_digits_may_serve_for_as_long_as_it_likes(page):
    sums = [7e10 + 0.5, 7e10 + 150_000.5]
    readings = {(f"{TF}request_latency_sum", PREDICT): sums, (f"{TF}request_latency_count", PREDICT): [7, 37]}
    found = server_times("savedmodel", page(readings))
    assert found.total_ms == pytest.approx(5.0)
    assert not any("six digits" in text for text in found.notes)


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
