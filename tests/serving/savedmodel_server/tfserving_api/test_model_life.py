"""How models change under TensorFlow Serving's API, and how many calls it takes at a time."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import grpc
import pytest
from google.protobuf import text_format

pytestmark = pytest.mark.system
HALF = "half_plus_two"
UNSUPPORTED = (
    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
)
MOST_CALLS = 2000
ANSWER_S = 60


@pytest.fixture(scope="module")
def pb():
    """The published messages (importing them imports tensorflow)."""
    from tensorflow_serving.apis import model_management_pb2

    return model_management_pb2


@pytest.fixture
def served(pb, models_config):
    """A reload request for what is served already."""
    request = pb.ReloadConfigRequest()
    text_format.Parse(models_config, request.config)
    return request


def model_of(request, name):
    (found,) = [model for model in request.config.model_config_list.config if model.name == name]
    return found


def reload(api, pb, request):
    return api.call("HandleReloadConfigRequest", request, pb.ReloadConfigResponse)


def refused(api, pb, request):
    with pytest.raises(grpc.RpcError) as caught:
        reload(api, pb, request)
    assert api.post(f"/v1/models/{HALF}/labels/stable:predict", {"instances": [1.0]}) == (200, {"predictions": [2.5]})
    return caught.value.code().name, caught.value.details()


def test_a_reload_without_a_model_list_is_refused(api, pb):
    assert refused(api, pb, pb.ReloadConfigRequest()) == ("INVALID_ARGUMENT", UNSUPPORTED)


def test_a_reload_with_a_custom_configuration_is_refused(api, pb):
    request = pb.ReloadConfigRequest()
    request.config.custom_model_config.SetInParent()
    assert refused(api, pb, request) == ("INVALID_ARGUMENT", UNSUPPORTED)


def test_a_reload_that_lists_a_model_twice_is_refused(api, pb, served):
    model_of(served, "zoo").name = HALF
    text = f"Illegal to list model {HALF} multiple times in config list"
    assert refused(api, pb, served) == ("INVALID_ARGUMENT", text)


@pytest.mark.parametrize("path", ["relative", "relative/path", ""])
def test_a_reload_with_a_relative_base_path_is_refused(api, pb, served, path):
    model_of(served, "zoo").base_path = path
    text = f"Expected model zoo to have an absolute path or URI; got base_path()={path}"
    assert refused(api, pb, served) == ("INVALID_ARGUMENT", text)


def test_a_reload_with_another_platform_for_a_served_model_is_refused(api, pb, served):
    model_of(served, "zoo").model_platform = "other"
    text = "Illegal to change a model's platform. For model zoo platform was tensorflow and new platform requested "
    assert refused(api, pb, served) == ("INVALID_ARGUMENT", f"{text}is other")


def test_a_reload_with_an_unknown_platform_for_a_new_model_is_refused(api, pb, served):
    served.config.model_config_list.config.add(name="new", base_path="/nowhere", model_platform="other")
    assert refused(api, pb, served) == ("INVALID_ARGUMENT", "Model new requests unsupported platform other")


def test_a_reload_without_a_platform_is_refused(api, pb, served):
    model_of(served, "zoo").model_platform = ""
    code, text = refused(api, pb, served)
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("Illegal setting neither ModelServerConfig::model_type (deprecated) nor ")
    assert text.endswith(", model name is zoo")


def test_a_reload_that_moves_a_label_to_a_version_that_is_not_available_is_refused(api, pb, served):
    model_of(served, HALF).version_labels["stable"] = 99
    text = f"Request to assign label to version 99 of model {HALF}, which is not currently available for inference"
    assert refused(api, pb, served) == ("FAILED_PRECONDITION", text)


def test_a_reload_answers_the_increase_of_each_metric_that_it_names(api, pb, served):
    names = ["/tensorflow/serving/request_count", "/tensorflow/serving/request_latency", "/nowhere"]
    served.metric_names.extend([*names, names[0]])
    response = reload(api, pb, served)
    assert response.status.error_code == 0
    assert sorted(metric.name for metric in response.metric) == sorted(names)
    increases = {metric.name: metric.int64_value_increase for metric in response.metric}
    assert increases["/nowhere"] == increases["/tensorflow/serving/request_latency"] == 0


def test_a_label_moves_to_a_version_that_is_available(api, pb, served):
    model_of(served, HALF).version_labels["stable"] = 2
    path = f"/v1/models/{HALF}/labels/stable/metadata"
    try:
        assert reload(api, pb, served).status.error_code == 0
        assert api.get(path)[1]["model_spec"]["version"] == "2"
    finally:
        model_of(served, HALF).version_labels["stable"] = 1
        reload(api, pb, served)
    assert api.get(path)[1]["model_spec"]["version"] == "1"


def test_a_model_that_a_reload_leaves_out_is_not_found_until_it_is_listed_again(api, pb, served):
    models = served.config.model_config_list.config
    gate = model_of(served, "gate")
    models.remove(gate)
    try:
        assert reload(api, pb, served).status.error_code == 0
        assert api.get("/v1/models/gate/metadata")[0] == 404
    finally:
        models.append(gate)
        reload(api, pb, served)
    assert api.get("/v1/models/gate/metadata")[0] == 200


class Gate:
    """Calls of the model `gate`: those over gRPC wait in it, those over REST open it."""

    def __init__(self, api):
        from tensorflow_serving.apis import predict_pb2

        self._api = api
        self._pool = ThreadPoolExecutor(MOST_CALLS)
        self._response = predict_pb2.PredictResponse
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = "gate"
        self._request.inputs["x"].dtype = 1
        self._request.inputs["x"].float_val.append(1.0)
        self._request.inputs["x"].tensor_shape.dim.add(size=1)
        self._inside = self._rest("arrived")
        self.held: list[Future] = []

    def enter(self) -> Future | None:
        """One more call over gRPC: None where it waits in the model now, else its end."""
        call = self._pool.submit(self._api.call, "Predict", self._request, self._response)
        done, _ = wait([call, self._inside], ANSWER_S, FIRST_COMPLETED)
        if call in done:
            return call
        assert self._inside.result()[0] == 200
        self._inside = self._rest("arrived")
        self.held.append(call)
        return None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        while self.held:
            self.let_one_go()
        # the question for an arrival is still open: one more call answers it
        last = self._pool.submit(self._api.call, "Predict", self._request, self._response)
        assert self._inside.result(ANSWER_S)[0] == 200
        assert self._rest("open").result(ANSWER_S)[0] == 200
        last.result(ANSWER_S)
        self._pool.shutdown()

    def let_one_go(self) -> None:
        """One of the calls that wait is answered."""
        assert self._rest("open").result(ANSWER_S)[0] == 200
        done, left = wait(self.held, ANSWER_S, FIRST_COMPLETED)
        assert [call.result().outputs["y"].float_val[0] for call in done] == [1.0]
        self.held = list(left)

    def _rest(self, signature):
        return self._pool.submit(self._api.predict, "gate", {"signature_name": signature, "instances": [1.0]})


def test_a_call_that_finds_no_thread_is_refused_until_another_call_ends(narrow):
    with Gate(narrow) as gate:
        while len(gate.held) < MOST_CALLS and (ended := gate.enter()) is None:
            pass
        error = ended.exception()
        assert (error.code().name, error.details()) == ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
        held = len(gate.held)
        gate.let_one_go()
        assert len(gate.held) == held - 1
        assert any(gate.enter() is None for _ in range(1000))  # at once here; a thread may come back after the answer
