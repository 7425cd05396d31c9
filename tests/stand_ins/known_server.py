"""An HTTP server of known behaviour: the truth that the load generator is held against.

    python tests/known_server.py --fixed-ms 5

prints its port and its start (monotonic ns) as one line. It answers every request after a time that it knows exactly,
and keeps the moment when each request arrived whole and the moment when its answer was due: GET /truth gives both as
int64 pairs, nanoseconds of time.monotonic_ns(), and begins anew. GET /lateness gives by how many nanoseconds an answer
left after it was due (int64, in the order of the answers), which is what this machine cost the server. Deadlines are
kept with a timerfd, because an event loop's milliseconds would be the largest error in the room.

    --fixed-ms T        every answer after T
    --exponential-ms T  after exponential times with mean T
    --queue-ms T        one server with service time T: who comes while it is busy waits (M/D/1 under Poisson arrivals)
    --stall-every S --stall-for S   nothing is answered during the stalls; what is due waits for their end
    --misbehave WHAT    close, chunked, until-close, cut, cut-head, garbage, silent, http-503, slow-bytes, early-close
"""

from __future__ import annotations

import argparse
import ctypes
import heapq
import random
import select
import socket
import sys
from array import array
from time import monotonic_ns

BODY = b'{"predictions": [[0.25, 0.75]]}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Timerfd:
    def __init__(self):
        self._libc = ctypes.PyDLL(None)
        self.fd = self._libc.timerfd_create(1, 0o2004000)
        self._spec = (ctypes.c_long * 4)()
        self._libc.prctl(29, 1000, 0, 0, 0)

    def arm(self, at_ns):
        self._spec[2], self._spec[3] = divmod(max(at_ns, 1), 1_000_000_000) if at_ns else (0, 0)
        self._libc.timerfd_settime(self.fd, 1, self._spec, None)


class KnownServer:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.listener = socket.create_server(
            (options.host, options.port),
            backlog=1024,
            family=socket.AF_INET6 if ":" in options.host else socket.AF_INET,
        )
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.epoll = select.epoll()
        self.timer = Timerfd()
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)
        self.epoll.register(self.timer.fd, select.EPOLLIN)
        self.connections = {}
        self.buffers = {}
        self.due = []
        self.truth = array("q")
        self.lateness = array("q")
        self.reply = self._reply()
        self.order = 0
        self.busy_until_ns = 0
        self.start_ns = monotonic_ns()

    def serve(self):
        immediate = not (self.options.fixed_ms or self.options.exponential_ms or self.options.queue_ms)
        self.immediate = immediate and not self.options.stall_every
        while True:
            for fd, mask in self.epoll.poll():
                if fd == self.listener.fileno():
                    self._accept()
                elif fd in self.connections:
                    self._read(fd, mask)
            self._answer_due()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections[connection.fileno()] = connection
            self.buffers[connection.fileno()] = b""
            self.epoll.register(connection.fileno(), select.EPOLLIN)

    def _read(self, fd, _mask):
        connection = self.connections[fd]
        try:
            data = connection.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(fd)
            return
        data = self.buffers[fd] + data
        size = self._whole(data)
        if size is None:
            self.buffers[fd] = data
            return
        self.buffers[fd] = data[size:]
        self._take(connection, data, monotonic_ns())

    @staticmethod
    def _whole(data):
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        start = data.find(b"Content-Length: ", 0, end)
        length = int(data[start + 16 : data.find(b"\r", start)]) if start >= 0 else 0
        return end + 4 + length if len(data) >= end + 4 + length else None

    def _take(self, connection, data, now_ns):
        if data.startswith((b"GET /truth", b"GET /lateness")):
            if data.startswith(b"GET /truth"):
                body, self.truth = self.truth.tobytes(), array("q")
            else:
                body, self.lateness = self.lateness.tobytes(), array("q")
            connection.setblocking(True)
            connection.sendall(_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            connection.setblocking(False)
            return
        due_ns = self._due(now_ns)
        self.truth.extend((now_ns, due_ns))
        if self.options.silent_after and len(self.truth) > 2 * self.options.silent_after:
            return
        if self.immediate:
            self._answer(connection)
            return
        self.order += 1
        heapq.heappush(self.due, (due_ns, self.order, connection))

    def _due(self, now_ns):
        options = self.options
        if options.queue_ms:
            self.busy_until_ns = max(self.busy_until_ns, now_ns) + int(options.queue_ms * 1e6)
            return self.busy_until_ns
        due_ns = now_ns + int(options.fixed_ms * 1e6)
        if options.exponential_ms:
            due_ns = now_ns + int(self.random.expovariate(1 / options.exponential_ms) * 1e6)
        if options.stall_every:
            cycle_ns, stall_ns = int(options.stall_every * 1e9), int(options.stall_for * 1e9)
            into_ns = (due_ns - self.start_ns) % cycle_ns
            if into_ns > cycle_ns - stall_ns:
                due_ns += cycle_ns - into_ns
        return due_ns

    def _answer_due(self):
        while self.due and self.due[0][0] <= (now_ns := monotonic_ns()):
            due_ns, _, connection = heapq.heappop(self.due)
            self._answer(connection)
            self.lateness.append(now_ns - due_ns)
        self.timer.arm(self.due[0][0] if self.due else 0)

    def _answer(self, connection):
        if connection.fileno() < 0:
            return
        reply, close = self.reply
        try:
            if self.options.misbehave == "slow-bytes":
                for byte in (reply[i : i + 7] for i in range(0, len(reply), 7)):
                    connection.send(byte)
            elif reply:
                connection.send(reply)
        except OSError:
            close = True
        if close:
            self._close(connection.fileno())

    def _reply(self):
        body = BODY
        length = b"Content-Length: %d\r\n" % len(body)
        halves = body[:10], body[10:]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
        return {
            "": (_HEAD + length + b"\r\n" + body, False),
            "slow-bytes": (_HEAD + length + b"\r\n" + body, False),
            "close": (_HEAD + length + b"Connection: close\r\n\r\n" + body, True),
            "chunked": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, False),
            "until-close": (_HEAD + b"\r\n" + body, True),
            "cut": (_HEAD + length + b"\r\n" + body[:7], True),
            "cut-head": (_HEAD[:20], True),
            "garbage": (b"\x00\x01 this is not HTTP\r\n\r\n", False),
            "silent": (b"", False),
            "early-close": (b"", True),
            "http-503": (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", False),
        }[self.options.misbehave]

    def _close(self, fd):
        connection = self.connections.pop(fd, None)
        self.buffers.pop(fd, None)
        if connection is not None:
            self.epoll.unregister(fd)
            connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    for name in ("fixed-ms", "exponential-ms", "queue-ms", "stall-every", "stall-for"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--misbehave", default="")
    parser.add_argument("--silent-after", type=int, default=0, help="answer so many requests, then none")
    parser.add_argument("--seed", type=int, default=0)
    server = KnownServer(parser.parse_args())
    print(server.port, server.start_ns, flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
