"""A server whose cold start is programmed: python delayed_server.py PORT STAMPS BIND READY RIGHT SLOW SLOW_MS FAST

It binds its port BIND seconds after it began, is ready READY seconds later, answers rightly RIGHT seconds later, and
takes SLOW_MS for each of its next SLOW answers and FAST milliseconds for the rest. The monotonic times at which it did
so go to STAMPS as JSON: time.monotonic_ns() is one clock for all processes of a machine.
"""

import http.server
import json
import sys
import threading
import time
from pathlib import Path

RIGHT, WRONG = b'{"predictions": [[0.25, 0.75]]}', b'{"predictions": [[0.75, 0.25]]}'


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        ready = "ready" in self.server.stamps
        self._send(200 if ready else 503, b"ready" if ready else b"loading")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if "right" not in self.server.stamps:
            return self._send(200, WRONG)
        answers = self.server.answers
        self.server.answers += 1
        if answers:  # the first right one comes at once
            time.sleep((self.server.slow_ms if answers <= self.server.slow else self.server.fast_ms) / 1000)
        self._send(200, RIGHT)
        return None

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


def main():
    began_ns = time.monotonic_ns()
    port, stamps, *numbers = sys.argv[1:]
    bind_s, ready_s, right_s, slow, slow_ms, fast_ms = map(float, numbers)
    time.sleep(bind_s)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.slow, server.slow_ms, server.fast_ms, server.answers = slow, slow_ms, fast_ms, 0
    server.stamps = {"began": began_ns, "bound": time.monotonic_ns()}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, wait_s in (("ready", ready_s), ("right", right_s)):
        time.sleep(wait_s)
        server.stamps[name] = time.monotonic_ns()
    Path(stamps).with_suffix(".tmp").write_text(json.dumps(server.stamps))
    Path(stamps).with_suffix(".tmp").rename(stamps)
    time.sleep(600)


if __name__ == "__main__":
    main()
