"""A few thousand damaged requests: no crash, and no error that is a bug of ours (100,000 in benchmarks/fuzz)."""

import grpc
import pytest
import requests
from google.protobuf.message import DecodeError

from tests.serving.savedmodel_server import mutations, reload_inputs

pytestmark = pytest.mark.system
BUG = "Internal error"


def test_damaged_bodies_over_rest_get_documented_answers(server):
    session = requests.Session()
    seen = set()
    for path, body in mutations.rest_requests(seed=1, count=2500):
        reply = session.post(server.url + path, data=body, timeout=30)
        seen.add(reply.status_code)
        assert reply.status_code < 500 or reply.status_code == 501, (path, body, reply.text)
        assert BUG not in reply.text, (path, body)
    assert {200, 400, 404} <= seen


def test_damaged_messages_over_grpc_get_documented_answers(server):
    seen = set()
    with grpc.insecure_channel(server.target) as channel:
        for method, message in mutations.grpc_requests(seed=1, count=1500):
            try:
                channel.unary_unary(method)(message, timeout=30)
                seen.add("OK")
            except grpc.RpcError as error:
                seen.add(error.code().name)
                assert BUG not in error.details(), (method, message)
                assert error.code() is not grpc.StatusCode.UNKNOWN, (method, message, error.details())
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= seen


def test_damaged_reloads_are_refused_and_the_models_of_the_last_accepted_one_served(server, zoo):
    with grpc.insecure_channel(server.target) as channel:
        reloads = reload_inputs.Reloads(channel, zoo)
        for message in reload_inputs.requests(seed=1, count=60, folder=zoo):
            reloads.send(message)
        reloads.restore()
    assert reloads.faults == []
    assert set(reloads.codes) == {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "INTERNAL"}


def test_no_reload_that_can_be_parsed_leads_a_server_out_of_its_folder(zoo):
    from tensorflow_serving.apis import model_management_pb2

    for message in reload_inputs.requests(seed=2, count=2000, folder=zoo):
        try:
            request = model_management_pb2.ReloadConfigRequest.FromString(message)
        except DecodeError:
            continue
        for entry in request.config.model_config_list.config:
            path = entry.base_path.removeprefix("file://")
            inside = path == str(zoo) or path.startswith(f"{zoo}/")
            assert inside or not path.startswith("/"), path
            assert ".." not in path.split("/"), path
