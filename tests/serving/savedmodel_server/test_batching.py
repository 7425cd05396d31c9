"""A real savedmodel-server batches what it can, says what it cannot, and counts both as TensorFlow Serving does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.serving.savedmodel_server.savedmodel_zoo import save_half_plus, save_without_functions
from tests.serving.savedmodel_server.server_process import start_server

pytestmark = pytest.mark.system
FOUR_ONLY = "max_batch_size { value: 4 } batch_timeout_micros { value: 60000000 } num_batch_threads { value: 1 }"
"""A batch runs when it holds four rows: one that did not share a batch would wait for a minute."""


def page_of(server):
    return requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=20).text


def values(page, start):
    """The samples whose name and labels begin so."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(start)
    }


@pytest.fixture
def batching_server(tmp_path):
    """A server of the model m below `make(path)`, with batches of exactly four rows."""
    running = []

    def start(make):
        make(tmp_path / "m" / "1")
        parameters = tmp_path / "batching.config"
        parameters.write_text(FOUR_ONLY)
        base = f"--model_base_path={tmp_path / 'm'}"
        flags = ["--model_name=m", base, "--enable_batching", f"--batching_parameters_file={parameters}"]
        running.append(start_server(tmp_path, *flags))
        running[0].wait_ready("m")
        return running[0]

    yield start
    for server in running:
        server.stop()


@pytest.mark.parametrize("make", [save_without_functions, lambda path: save_half_plus(path, 2.0)])
def test_four_requests_in_one_batch_are_four_waits_and_one_batch(batching_server, make):
    server = batching_server(make)
    row = [1.0, 2.0] if make is save_without_functions else 1.0
    with ThreadPoolExecutor(4) as pool:
        url = f"{server.url}/v1/models/m:predict"
        replies = list(pool.map(lambda _: requests.post(url, json={"instances": [row]}, timeout=40), range(4)))
    answer = {"y": [5.0], "label": "small"} if make is save_without_functions else 2.5
    assert [reply.json() for reply in replies] == [{"predictions": [answer]}] * 4
    page, batching = page_of(server), ":tensorflow:serving:batching_session:"
    assert values(page, f"{batching}wrapped_run_count") == {f"{batching}wrapped_run_count": 1}
    (queued,) = values(page, f"{batching}queuing_latency_count").values()
    (queued_us,) = values(page, f"{batching}queuing_latency_sum").values()
    (ran,) = values(page, ":tensorflow:serving:runtime_latency_count").values()
    (ran_us,) = values(page, ":tensorflow:serving:runtime_latency_sum").values()
    (answered_us,) = values(page, ':tensorflow:serving:request_latency_sum{model_name="m",API="predict"').values()
    assert queued == ran == 4 and 0 < queued_us < ran_us < answered_us
    assert "event=unbatched" not in server.log.read_text()


def test_a_signature_of_a_fixed_batch_size_is_in_the_log_and_on_the_page(batching_server):
    server = batching_server(lambda path: save_without_functions(path, rows=1))
    reason = "input x has a fixed first dimension of 1"
    line = f"level=WARNING event=unbatched model=m version=1 signature=serving_default reason='{reason}'"
    assert server.log.read_text().count("event=unbatched") == 1 and line in server.log.read_text()
    labels = f'{{model_name="m",version="1",signature_name="serving_default",reason="{reason}"}}'
    assert f":savedmodel_server:unbatched_request_count{labels} 0" in page_of(server)
    reply = requests.post(f"{server.url}/v1/models/m:predict", json={"instances": [[1.0, 2.0]]}, timeout=20)
    assert reply.json() == {"predictions": [{"y": [5.0], "label": "small"}]}
    assert f":savedmodel_server:unbatched_request_count{labels} 1" in page_of(server)


def test_requests_count_as_in_tensorflow_serving(zoo, tmp_path):
    flags = ("--model_name=m", f"--model_base_path={zoo / 'half_plus_two'}")
    server = start_server(tmp_path, *flags)
    try:
        server.wait_ready("m")
        counts = ":tensorflow:serving:request_count"
        ok, latency = f'{counts}{{model_name="m",status="OK"}}', ":tensorflow:serving:request_latency_count"
        before = values(page_of(server), counts)[ok]  # of the readiness check: a status is counted too
        model, examples = f"{server.url}/v1/models/m", {"examples": [{"x": 1.0}]}
        assert requests.get(f"{model}/metadata", timeout=20).ok and requests.get(model, timeout=20).ok
        assert requests.post(f"{model}:predict", json={"instances": [1.0]}, timeout=20).ok
        classify = {**examples, "signature_name": "classify_x_to_y"}
        regress = {**examples, "signature_name": "regress_x_to_y"}
        assert requests.post(f"{model}:classify", json=classify, timeout=20).ok
        assert requests.post(f"{model}:regress", json=regress, timeout=20).ok
        assert (
            requests.post(f"{server.url}/v1/models/nope:predict", json={"instances": [1]}, timeout=20).status_code
            == 404
        )
        page = page_of(server)
        assert values(page, counts)[ok] == before + 5
        assert values(page, f'{counts}{{model_name="nope"') == {f'{counts}{{model_name="nope",status="NOT_FOUND"}}': 1}
        latencies = {key.removeprefix(latency): value for key, value in values(page, latency).items()}
        labels = '{{model_name="m",API="{}",entrypoint="REST"}}'
        assert latencies == {
            labels.format(""): before + 2,
            **{labels.format(verb): 1 for verb in ("predict", "classify", "regress")},
        }
    finally:
        server.stop()
