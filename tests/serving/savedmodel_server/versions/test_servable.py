"""Every signature that has rows is batched, whatever exported it; which is not is known, with the reason."""

import logging
import threading

import numpy as np
import pytest

from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.calls.dispatch import Dispatcher
from serving.savedmodel_server.dtypes import DT_FLOAT
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.batching import BatchingParameters
from serving.savedmodel_server.versions.servable import Servable, ServableOptions, why_unbatched
from serving.savedmodel_server.versions.signatures import Signature, TensorSpec
from tests.serving.savedmodel_server.savedmodel_zoo import save_without_functions

FULL_ONLY = BatchingParameters(max_batch_size=2, batch_timeout_micros=60_000_000, num_batch_threads=1)
"""A batch runs when it holds two rows: one that did not share a batch would wait for a minute."""
ALONE = BatchingParameters(max_batch_size=8)


@pytest.fixture(scope="session")
def without_functions(tmp_path_factory):
    return save_without_functions(tmp_path_factory.mktemp("tensorflow1") / "1")


@pytest.fixture
def load():
    """A loaded version, and what runs its calls; both end with the test."""
    ends = []

    def made(path, parameters):
        metrics = Metrics()
        servable = Servable("m", 1, path, ServableOptions(inter_op_threads=1, batching=parameters))
        dispatcher = Dispatcher(4, parameters, metrics)
        ends.extend([dispatcher, servable])
        return servable, dispatcher, metrics

    yield made
    for end in ends:
        end.close()


def answer(servable, dispatcher, key, *requests):
    """The calls of these requests, each a tuple of arrays, answered."""
    over = threading.Semaphore(0)
    signature = servable.signatures[key]

    def done(calls):
        for _ in calls:
            over.release()

    calls = [Call(servable, signature, arrays, done) for arrays in requests]
    for call in calls:
        dispatcher.submit([call])
    for _ in calls:
        assert over.acquire(timeout=30), "a request waits for a batch that nobody else is in"
    return calls


def value(metrics, name):
    """The sum of the samples of a name on the page."""
    lines = [line for line in metrics.page().decode().splitlines() if line.partition("{")[0].partition(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def spec(name, shape, tensor="t:0"):
    return TensorSpec(name, tensor, DT_FLOAT, shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ([spec("x", (-1, 3))], [spec("y", (-1,))], None),
        ([spec("x", None)], [spec("y", None)], None),
        ([], [spec("y", (-1,))], "it has no inputs"),
        ([spec("x", ())], [spec("y", (-1,))], "input x is a scalar"),
        ([spec("x", (1, 3))], [spec("y", (1,))], "input x has a fixed first dimension of 1"),
        ([spec("x", (-1,))], [spec("y", ())], "output y is a scalar"),
        (
            [spec("x", (-1,))],
            [spec("y", (-1,)), spec("names", (10,))],
            "output names has a fixed first dimension of 10",
        ),
        ([spec("x", None, tensor="")], [spec("y", (-1,))], "input x is sparse or ragged"),
    ],
)
def test_shapes_without_rows_say_why_they_cannot_share_a_batch(inputs, outputs, reason):
    signature = Signature("s", "predict", {one.name: one for one in inputs}, {one.name: one for one in outputs})
    assert why_unbatched(signature) == reason


def test_requests_to_a_graph_without_functions_share_a_batch(load, without_functions):
    servable, dispatcher, metrics = load(without_functions, FULL_ONLY)
    rows = [np.array([[1.0, 2.0]], np.float32), np.array([[10.0, 1.0]], np.float32)]
    calls = answer(servable, dispatcher, "serving_default", *[(row,) for row in rows])
    assert [call.outputs[0].tolist() for call in calls] == [[b"small"], [b"large"]]
    assert [call.outputs[1].tolist() for call in calls] == [[[5.0]], [[12.0]]]
    assert servable.unbatched == {}
    assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count") == 1
    assert value(metrics, ":tensorflow:serving:batching_session:queuing_latency_count") == 2


def test_requests_to_a_function_share_a_batch_and_count_as_such(load, zoo):
    servable, dispatcher, metrics = load(zoo / "zoo" / "1", FULL_ONLY)
    rows = [np.array([[1.0, 2.0, 3.0]], np.float32), np.array([[4.0, 5.0, 6.0]], np.float32)]
    calls = answer(servable, dispatcher, "serving_default", *[(row,) for row in rows])
    assert [call.outputs[0].tolist() for call in calls] == [[6.0], [15.0]]
    assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count") == 1
    assert value(metrics, ":tensorflow:serving:batching_session:queuing_latency_count") == 2


def test_a_bad_row_in_a_graph_without_functions_fails_its_own_request_alone(load, without_functions):
    servable, dispatcher, _ = load(without_functions, ALONE)
    good = (np.array([[1.0, 2.0]], np.float32),)
    bad = (np.array([[1.0, 2.0, 3.0]], np.float32),)
    calls = answer(servable, dispatcher, "serving_default", good, bad)
    assert calls[0].outputs[1].tolist() == [[5.0]] and calls[0].error is None
    assert calls[1].outputs is None and calls[1].error is not None


def messages(caplog):
    """What the server itself logged: TensorFlow logs its deprecations once a process, in whichever test is first."""
    return [record.getMessage() for record in caplog.records if record.name == "savedmodel_server"]


def test_a_fixed_batch_size_is_served_unbatched_logged_once_and_counted(load, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="savedmodel_server"):
        servable, dispatcher, metrics = load(save_without_functions(tmp_path / "1", rows=1), FULL_ONLY)
        calls = answer(servable, dispatcher, "serving_default", *[(np.array([[1.0, 2.0]], np.float32),)] * 2)
    reason = "input x has a fixed first dimension of 1"
    assert [call.outputs[1].tolist() for call in calls] == [[[5.0]], [[5.0]]]
    assert servable.unbatched == {"serving_default": reason}
    assert messages(caplog) == [f"event=unbatched model=m version=1 signature=serving_default reason={reason!r}"]
    labels = f'{{model_name="m",version="1",signature_name="serving_default",reason="{reason}"}}'
    assert f":savedmodel_server:unbatched_request_count{labels} 2" in metrics.page().decode()
    assert value(metrics, ":tensorflow:serving:batching_session:queuing_latency_count") == 0


def test_outputs_that_do_not_match_the_rows_end_the_batching_of_a_signature(load, zoo, caplog):
    servable, dispatcher, metrics = load(zoo / "zoo" / "1", FULL_ONLY)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="savedmodel_server"):
        requests = [(np.array([1.0], np.float32),), (np.array([2.0], np.float32),)]
        calls = answer(servable, dispatcher, "uneven", *requests)
        again = answer(servable, dispatcher, "uneven", (np.array([3.0], np.float32),))
    assert [[output.tolist() for output in call.outputs] for call in calls] == [
        [[1.0], [1.0, 1.0]],
        [[2.0], [2.0, 2.0]],
    ]
    assert [output.tolist() for output in again[0].outputs] == [[3.0], [3.0, 3.0]]
    reason = "output z has 2 rows where the input has 1"
    assert servable.unbatched["uneven"] == reason
    assert [message.partition("signature=")[2] for message in messages(caplog)] == [f"uneven reason={reason!r}"]
    assert value(metrics, ":savedmodel_server:unbatched_request_count") == 3


def test_of_a_signature_of_any_rank_rows_are_batched_and_scalars_are_counted(load, zoo):
    servable, dispatcher, metrics = load(zoo / "zoo" / "1", FULL_ONLY)
    rows = answer(servable, dispatcher, "any_rank", *[(np.array([1.0], np.float32),)] * 2)
    scalar = answer(servable, dispatcher, "any_rank", (np.array(4.0, np.float32),))
    assert [call.outputs[0].tolist() for call in rows] == [[2.0], [2.0]] and scalar[0].outputs[0].tolist() == 5.0
    assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count") == 1
    assert value(metrics, ":savedmodel_server:unbatched_request_count") == 1


def test_without_batching_nothing_is_counted_as_unbatched(load, zoo):
    servable, dispatcher, metrics = load(zoo / "zoo" / "1", None)
    answer(servable, dispatcher, "scalar", (np.array(4.0, np.float32),))
    assert servable.unbatched == {} and value(metrics, ":savedmodel_server:unbatched_request_count") == 0


SPLIT = BatchingParameters(8, 60_000_000, max_execution_batch_size=2, enable_large_batch_splitting=True)


def test_a_request_is_split_over_batches_and_each_batch_counts_once(load, without_functions):
    servable, dispatcher, metrics = load(without_functions, SPLIT)
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    (call,) = answer(servable, dispatcher, "serving_default", (rows,))
    assert call.outputs[1].tolist() == (rows @ [[1.0], [2.0]]).tolist()
    assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count") == 2


def test_the_wait_for_a_batch_is_in_the_queue_and_in_the_run(load, without_functions):
    wait_us = 50_000
    servable, dispatcher, metrics = load(without_functions, BatchingParameters(4, wait_us, num_batch_threads=1))
    (call,) = answer(servable, dispatcher, "serving_default", (np.array([[1.0, 2.0]], np.float32),))
    queued_us = value(metrics, ":tensorflow:serving:batching_session:queuing_latency_sum")
    assert queued_us >= 0.9 * wait_us  # at least: how much longer depends on the machine
    assert call.micros >= queued_us


def test_requests_that_wait_together_run_in_batches_of_the_size_that_was_set(load, zoo):
    servable, dispatcher, metrics = load(zoo / "zoo" / "1", SPLIT)
    over = threading.Semaphore(0)
    signature, row = servable.signatures["serving_default"], np.array([[1.0, 2.0, 3.0]], np.float32)
    calls = [Call(servable, signature, (row,), lambda ended: [over.release() for _ in ended]) for _ in range(6)]
    dispatcher.submit(calls)
    assert all(over.acquire(timeout=30) for _ in calls)
    assert [call.outputs[0].tolist() for call in calls] == [[6.0]] * 6
    assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count") == 3


def test_a_request_of_more_rows_than_the_largest_batch_is_refused(load, zoo):
    servable, dispatcher, metrics = load(zoo / "zoo" / "1", SPLIT)
    (call,) = answer(servable, dispatcher, "serving_default", (np.zeros((9, 3), np.float32),))
    assert call.error.message == "Task size 9 is larger than maximum input batch size 8"
    assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count") == 0


def test_no_more_rows_wait_than_the_queue_holds():
    parameters = BatchingParameters(
        1024,
        max_execution_batch_size=8,
        enable_large_batch_splitting=True,
        max_enqueued_batches=125,
        num_batch_threads=1,
    )
    assert parameters.most_rows == 1008
