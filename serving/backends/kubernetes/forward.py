"""Ports of this machine that lead to those of a pod, through the API: for what has no other way to it.

Each connection has a stream of its own, so that one that breaks takes no other with it. Everything passes the API
server: good for asking whether an answer is right, and no place to measure from.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
from collections.abc import Iterable
from typing import Any

from serving.backends.kubernetes.cluster import Cluster
from serving.ports import HOST

_BLOCK_BYTES = 65536
_POLL_S = 0.5


class Forward:
    """Listens on 127.0.0.1 for each of a pod's ports, until it is closed. Nothing is asked before somebody connects."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str, ports: Iterable[int]) -> None:
        self._cluster, self._namespace, self._pod = cluster, namespace, pod
        self._closed = threading.Event()
        self._local: dict[int, int] = {}
        for port in ports:
            listener = socket.create_server((HOST, 0))
            self._local[port] = listener.getsockname()[1]
            threading.Thread(target=self._listen, args=(listener, port), name=f"forward-{pod}", daemon=True).start()

    def address(self, port: int) -> str:
        """host:port here that leads to the pod's `port`."""
        return f"{HOST}:{self._local[port]}"

    def close(self) -> None:
        """Take no more connections, and end those that there are; twice is harmless."""
        self._closed.set()

    def _listen(self, listener: socket.socket, port: int) -> None:
        listener.settimeout(_POLL_S)
        with listener:
            while not self._closed.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE):
                        raise
                    self._closed.wait(_POLL_S)  # the client waits in the queue until a descriptor is free
                    continue
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._carry, args=(client, port), daemon=True).start()

    def _carry(self, client: socket.socket, port: int) -> None:
        """Carry bytes both ways until one side ends; a pod that cannot be reached hangs up on the client."""
        with client:
            stream = self._open(port)
            if stream is None:
                return
            pod = stream.socket(port)
            try:
                self._pump(client, pod)
            finally:
                pod.close()

    def _open(self, port: int) -> Any:
        """A stream to the port; None where the API gives none."""
        import websocket
        from kubernetes.client import ApiClient, ApiException, CoreV1Api
        from kubernetes.stream import portforward

        # for a while the library puts its own function into the client that it is given: other threads use ours
        api = CoreV1Api(ApiClient(self._cluster.api.configuration))
        try:
            return portforward(api.connect_get_namespaced_pod_portforward, self._pod, self._namespace, ports=str(port))
        except (ApiException, websocket.WebSocketException, OSError):
            return None

    def _pump(self, client: socket.socket, pod: Any) -> None:
        other = {client: pod, pod: client}
        with selectors.DefaultSelector() as waiting, contextlib.suppress(OSError):
            for one in other:
                waiting.register(one, selectors.EVENT_READ)
            while not self._closed.is_set():
                for key, _ in waiting.select(_POLL_S):
                    block = key.fileobj.recv(_BLOCK_BYTES)  # type: ignore[union-attr]
                    if not block:
                        return
                    other[key.fileobj].sendall(block)
