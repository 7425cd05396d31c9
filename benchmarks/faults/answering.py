"""Servers of the campaign: a thread a connection on loopback, and the right answers of a model."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from models.manifest import ModelDir
from serving.wire import WIRES, payload_spec
from serving.wire.protos import tfserving_pb2 as pb

_CONTENT_LENGTH = b"content-length: "
_NO_LINGER = struct.pack("ii", 1, 0)


class RightAnswers:
    """What a model answers to each of its golden images, and how often a server has said so."""

    def __init__(self, model: Path) -> None:
        directory = ModelDir(model)
        manifest, images, wire = directory.manifest, directory.golden_images(), WIRES["tfserving"]
        expected = manifest.answers_of("savedmodel")
        assert expected is not None and manifest.output is not None
        spec = payload_spec(manifest)
        self.classes = len(expected[0])
        self.bodies = [orjson.dumps({"predictions": [row]}) for row in expected]
        self.messages = [prediction(manifest.output, row) for row in expected]
        """PredictResponse of each image."""
        self.wrong_message = prediction(manifest.output, [1 / self.classes] * self.classes)
        self.image_of: dict[bytes, int] = {}
        """Image by the body of the request that asks for it, REST and gRPC."""
        for place, image in enumerate(images):
            self.image_of[wire.rest_predict(manifest.name, [image], "image", spec).body] = place
            self.image_of[wire.grpc_predict(manifest.name, [image], "image", spec).body] = place
        self.given: Counter[int] = Counter()
        """Right answers by image, counted before they are sent."""
        self._lock = threading.Lock()

    def give(self, image: int) -> None:
        """Count a right answer."""
        with self._lock:
            self.given[image] += 1


def prediction(output: str, row: list[float]) -> bytes:
    """A serialised PredictResponse of one row of numbers."""
    shape = pb.TensorShape(dim=[pb.TensorShape.Dim(size=1), pb.TensorShape.Dim(size=len(row))])
    response = pb.PredictResponse()
    response.outputs[output].CopyFrom(pb.Tensor(dtype=pb.DT_FLOAT, tensor_shape=shape, float_val=row))
    message: bytes = response.SerializeToString()
    return message


class Visit:
    """One connection of a client, as a server sees it. Raises ConnectionError where the client has left."""

    def __init__(self, sock: socket.socket, answers: RightAnswers) -> None:
        self.sock, self.answers = sock, answers
        self._buffer = b""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        while len(self._buffer) < size:
            self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def requests(self) -> Iterator[int]:
        """The image of each HTTP request, once it was read whole."""
        while True:
            yield self._request()

    def _request(self) -> int:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
        head = self.read(end + 4).lower()
        begin = head.find(_CONTENT_LENGTH)
        if begin < 0:  # a GET: whether the model is there
            self.send(page(b'{"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}'))
            return self._request()
        begin += len(_CONTENT_LENGTH)
        return self.answers.image_of[self.read(int(head[begin : head.find(b"\r", begin)]))]

    def peeked(self) -> int:
        """The image of a request that is left unread."""
        whole = self.sock.recv(1 << 16, socket.MSG_PEEK)
        if not whole:
            raise ConnectionError
        return self.answers.image_of[whole.partition(b"\r\n\r\n")[2]]

    def body(self, image: int) -> bytes:
        """The right answer, in JSON; it counts as given."""
        self.answers.give(image)
        return self.answers.bodies[image]

    def message(self, image: int) -> bytes:
        """The right answer, as a message of gRPC; it counts as given."""
        self.answers.give(image)
        return self.answers.messages[image]

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        """End the connection with RST in place of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.sock.close()

    def _fill(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError
        self._buffer += data


Serve = Callable[[Visit], None]
"""What a server does with one connection; it is closed afterwards."""


def page(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n") -> bytes:
    """A whole HTTP answer."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def answers_rightly(visit: Visit) -> None:
    """What a server should do."""
    for image in visit.requests():
        visit.send(page(visit.body(image)))


class Listener:
    """A server on a free port of 127.0.0.1 while the block runs."""

    def __init__(self, serve: Serve, answers: RightAnswers, *, accept_every_s: float = 0.0, backlog: int = 512) -> None:
        self._serve, self._answers, self._accept_every_s = serve, answers, accept_every_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []

    def __enter__(self) -> Listener:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                time.sleep(self._accept_every_s)
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(sock)
                threading.Thread(target=self._visit, args=(sock,), daemon=True).start()

    def _visit(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            self._serve(Visit(sock, self._answers))
