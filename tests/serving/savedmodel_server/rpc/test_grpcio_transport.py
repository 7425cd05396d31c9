"""The gRPC services on grpcio's own server."""

from types import SimpleNamespace

import grpc
import pytest

from serving.savedmodel_server.rpc.grpcio_transport import GrpcServer
from serving.savedmodel_server.rpc.services import Method
from serving.wire.protos.tfserving_pb2 import PredictRequest

STREAMS = 3


@pytest.fixture
def port():
    """Of a server that answers a PredictRequest with itself, STREAMS calls of a connection at a time."""
    api = SimpleNamespace(
        methods=lambda: {"/a/Echo": Method("", None, PredictRequest)},
        call=lambda method, request, caller: request,
    )
    limit = (("grpc.max_concurrent_streams", STREAMS),)
    server = GrpcServer(api, "127.0.0.1:0", threads=2, max_bytes=1 << 20, arguments=limit, health=False)
    yield server.port
    server._server.stop(0).wait()


def test_messages_that_cannot_be_parsed_use_up_no_streams_of_their_connection(port):
    good = PredictRequest(model_spec={"name": "m"}).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/a/Echo")
        for _ in range(3 * STREAMS):
            with pytest.raises(grpc.RpcError) as refused:
                call(b"\xff", timeout=20)
            assert refused.value.code() is grpc.StatusCode.INTERNAL
            assert "Exception deserializing request!" in refused.value.details()
        assert call(good, timeout=20) == good
