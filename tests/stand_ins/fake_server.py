"""A stand-in for a server, for tests of the backends alone: `python fake_server.py PORT MODE [ADDRESS]`."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ANSWER = b'{"predictions": [[0.25, 0.75]]}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self._send(200, socket.gethostname().encode() if self.path == "/who" else b"ready")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        mode, asked = sys.argv[2], self.server.asked
        self.server.asked += 1
        if mode == "wrong":
            self._send(200, b'{"predictions": [[0.75, 0.25]]}')
        elif mode == "late" and asked < 3:
            self._send(*[(503, b"busy"), (200, b"{}"), (200, b'{"predictions": [[0.5, 0.5]]}')][asked])
        else:
            self._send(200, ANSWER)

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


def main():
    port, mode = int(sys.argv[1]), sys.argv[2]
    if mode == "crash":
        print("the weights are missing", flush=True)
        sys.exit(7)
    if mode == "broken":
        print("loading\nFATAL: the weights are missing\nstill here", flush=True)
        time.sleep(600)
    if mode == "hang":
        print("thinking", flush=True)
        time.sleep(600)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "family":
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleeper)
        # A daemon: its parent is gone and its session is its own, so that only its environment tells whose it is.
        script = f"import subprocess as s; print(s.Popen({sleeper!r}, start_new_session=True, stdout=s.DEVNULL).pid)"
        daemon = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout
        Path("family").write_text(f"{os.getpid()} {child.pid} {int(daemon)}")
    if mode == "hungry":
        print("eating", flush=True)
        eaten = []
        while True:
            eaten.append(b"x" * 2**24)
    if mode == "busy":
        busy = "x = 0\nfor i in range(10**7): x += i"
        subprocess.run([sys.executable, "-c", busy], check=True)
    print(f"cpus {sorted(os.sched_getaffinity(0))}", flush=True)
    server = http.server.ThreadingHTTPServer((sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1", port), Handler)
    server.asked = 0
    server.serve_forever()


main()
