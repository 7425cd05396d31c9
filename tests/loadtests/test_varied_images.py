"""A trace that says how many images each request carries: every arrival keeps its number, in any share of the load."""

import argparse

import numpy as np
import pyarrow.parquet as pq
import pytest

from loadtests.arrivals.measured_time import ALWAYS
from loadtests.errors import LoadTestError
from loadtests.generator.varied_requests import disjoint_groups, prepared_request_of
from loadtests.options import options_for, read_options
from loadtests.samples.recorder import SampleWriter
from loadtests.session import Collector, prepare
from tests.loadtests.arrivals.traces.trace_text import AZURE_LMM, file_of
from tests.loadtests.generator.loads import known_server, run

IMAGES = [1, 3, 1]


def options(*arguments, host="http://127.0.0.1:1"):
    parser = argparse.ArgumentParser()
    for option in options_for("constant"):
        option.add_to(parser)
    namespace = parser.parse_args(["--arrivals", "trace", "--warmup", "0", *map(str, arguments)])
    namespace.host = host
    return read_options(namespace)


def prepared(folder, *arguments, engine="torchserve", **more):
    trace = file_of(folder, AZURE_LMM)
    return prepare(options("--trace", trace, "--engine", engine, "--duration", 5, *arguments, **more))


def images_of(load):
    return load.images[load.load.requests].tolist()


def test_each_arrival_takes_a_prepared_request_with_as_many_images(tmp_path):
    load = prepared(tmp_path)
    assert (load.load.schedule.whole() / 1e6).tolist() == [0, 694, 1747]
    assert images_of(load) == IMAGES
    assert load.settings["images_per_request"] is None
    assert load.settings["arrivals"]["mean_images"] == 1.667


def test_the_shares_of_workers_keep_the_images_with_the_arrivals(tmp_path):
    load = prepared(tmp_path)
    shares = [load.share(worker, 2) for worker in range(2)]
    assert [share.load.schedule.whole().tolist() for share in shares] == [[0, 1_747_000_000], [694_000_000]]
    assert [images_of(share) for share in shares] == [[1, 1], [3]]


def test_a_warm_up_has_requests_of_the_sizes_that_follow(tmp_path):
    load = prepared(tmp_path, "--warmup", 1, "--rate", 4)
    assert (load.load.schedule.whole() / 1e6).tolist() == [0, 250, 500, 750, 1000, 1694, 2747]
    assert images_of(load) == [1, 3, 1, 1, *IMAGES]


def test_samples_and_summary_have_the_images_of_each_request(tmp_path):
    """The server answers for one image: a request with three gets a bad reply, and counts no image."""
    out = tmp_path / "out"
    with known_server() as port:
        load = prepared(tmp_path, "--out", out, engine="tfserving", host=f"http://127.0.0.1:{port}")
        samples, generator = run(load.target, load.load)
    collector = Collector(load, lambda: generator.start_ns)
    collector.add(np.column_stack(list(samples.values())))
    summary = collector.finish([], [])
    table = pq.read_table(out / "samples.parquet").sort_by("scheduled_ns")
    assert table["images"].to_pylist() == IMAGES
    assert table["outcome"].to_pylist() == ["ok", "bad_reply", "ok"]
    assert summary.images_per_request is None
    assert summary.images_per_s == pytest.approx(summary.requests_per_s)


def test_arrivals_of_a_lost_worker_keep_their_images(tmp_path):
    load = prepared(tmp_path, "--out", tmp_path / "out")
    collector = Collector(load, lambda: 1)
    collector.add_lost(load.load.schedule.whole()[[1, 2]])
    collector.finish([], [])
    assert pq.read_table(tmp_path / "out" / "samples.parquet")["images"].to_pylist() == [3, 1]


def test_a_summary_counts_the_images_of_its_samples(tmp_path):
    writer = SampleWriter(tmp_path, np.array([1, 5], np.int16))
    rows = np.zeros((4, 11), np.int64)
    rows[:, 9] = [0, 1, 1, 0]
    writer.add(rows)
    assert pq.read_table(writer.close(ALWAYS))["images"].to_pylist() == [1, 5, 5, 1]


def test_requests_of_one_size_take_turns():
    assert prepared_request_of(np.array([2, 1, 2, 2, 1]), [1, 1, 1, 2, 2]).tolist() == [3, 0, 4, 3, 1]


def test_every_image_is_in_a_request_of_each_size():
    assert disjoint_groups(5, 2) == [[0, 1], [2, 3], [4, 0]]
    assert disjoint_groups(2, 5) == [[0, 1, 0, 1, 0]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images-per-request", 2], "leave --images-per-request out"),
        (["--engine", "http"], "engine http sends one body"),
    ],
)
def test_a_load_that_cannot_carry_the_images_is_refused_with_a_way_out(arguments, sentence, tmp_path):
    with pytest.raises(LoadTestError, match="--trace-format timestamps-iso --trace-column TIMESTAMP") as caught:
        prepared(tmp_path, *arguments)
    assert sentence in str(caught.value)
    alone = ["--trace-format", "timestamps-iso", "--trace-column", "TIMESTAMP", "--duration", 10]
    assert prepared(tmp_path, *arguments, *alone).load.schedule.count() == 5
