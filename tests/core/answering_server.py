"""A stand-in for a model server that needs no extra: it answers every prediction alike, over REST and gRPC.

python answering_server.py [HOST] prints its REST and its gRPC port as one line and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

from serving.savedmodel_server.body_budget import BodyBudget
from serving.savedmodel_server.rpc.h2_connection import Http2Connection
from serving.savedmodel_server.rpc.stream import Stream
from serving.wire.protos import tfserving_pb2 as pb

PROBABILITIES = (0.25, 0.75)
_BODY = b'{"predictions": [[0.25, 0.75]]}'
_REST_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


def _grpc_reply() -> bytes:
    shape = pb.TensorShape(dim=[pb.TensorShape.Dim(size=size) for size in (1, 2)])
    tensor = pb.Tensor(dtype=pb.DT_FLOAT, tensor_shape=shape, float_val=PROBABILITIES)
    return pb.PredictResponse(outputs={"probabilities": tensor}).SerializeToString()


async def _rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length: " in head:
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(_REST_REPLY)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serve until the process is ended."""
    reply, budget = _grpc_reply(), BodyBudget(1 << 25)
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"

    def answer(stream: Stream) -> None:
        stream.connection.answer(stream, reply)

    def connection() -> Http2Connection:
        return Http2Connection(answer, 1 << 24, budget, 60.0, lambda _connection: None)

    rest = await asyncio.start_server(_rest, host, 0)
    grpc = await asyncio.get_running_loop().create_server(connection, host, 0)
    print(rest.sockets[0].getsockname()[1], grpc.sockets[0].getsockname()[1], flush=True)
    await rest.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
