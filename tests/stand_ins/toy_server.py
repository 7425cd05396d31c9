"""A server that answers every predict request alike: python toy_server.py PORT MODE (answer, hang, crash, wrong)."""

import http.server
import sys
import time

PORT, MODE = int(sys.argv[1]), sys.argv[2]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self._send(b"toy_requests_total 7\n" if self.path == "/metrics" else b"ready")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if "form" in self.headers["Content-Type"]:
            self.send_error(500)  # as TorchServe does
        wrong = MODE == "wrong"
        self._send(b'{"predictions": [[0.75, 0.25]]}' if wrong else b'{"predictions": [[0.25, 0.75]]}')

    def _send(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


if MODE == "crash":
    print("the weights are missing", flush=True)
    sys.exit(7)
if MODE == "hang":
    time.sleep(600)
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
