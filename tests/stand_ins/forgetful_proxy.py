"""A TCP proxy that can forget its connections, as a host does that was replaced: they stay open, and nothing comes."""

import socket
import threading
from contextlib import suppress


class ForgetfulProxy:
    """Listens on `port` of 127.0.0.1 and passes everything to `upstream` and back."""

    def __init__(self, upstream):
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.accepted = 0
        self._forgotten = 0
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self):
        """Pass nothing more on the connections that there are; new ones are served."""
        self._forgotten = self.accepted

    def close(self):
        for sock in [self._listener, *self._sockets]:
            sock.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._sockets += [client, server]
                self.accepted += 1
                for source, sink in ((client, server), (server, client)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass, args=(source, sink, self.accepted), daemon=True).start()

    def _pass(self, source, sink, number):
        with suppress(OSError):
            while data := source.recv(65_536):
                if number > self._forgotten:
                    sink.sendall(data)
            if number > self._forgotten:
                sink.shutdown(socket.SHUT_WR)
