#!/bin/sh
# locust 2.47.0 with pyzmq 27.3.0: where localhost resolves to ::1 first, `--worker --master-host localhost` does not
# reach a master with `--master-bind-host 127.0.0.1`. Locust switches ZeroMQ's IPv6 on, and ZeroMQ
# takes one address of a name, where an HTTP client of the same name (requests 2.34.2) goes on to 127.0.0.1. With the
# address in place of the name the worker joins.
# Needs user namespaces (unshare -rm), in which the hosts file is replaced. Linux, Python 3.11.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check locust==2.47.0 pyzmq==27.3.0 requests==2.34.2 2>/dev/null
printf '::1 localhost\n127.0.0.1 localhost\n' >"$dir/hosts"
cat >"$dir/users.py" <<'PY'
from locust import User, constant


class Idle(User):
    wait_time = constant(1)
PY
cat >"$dir/check.py" <<'PY'
import http.server, socket, subprocess, sys, threading, time
import requests

folder, locust = sys.argv[1], sys.argv[1] + "/venv/bin/locust"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def joins(name):
    """Whether a worker that is given this name of the master joins it within 15 s."""
    port = free_port()
    common = [locust, "-f", folder + "/users.py", "--headless"]
    log = open(f"{folder}/{name}.log", "w+")
    master = subprocess.Popen([*common, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port),
                               "--expect-workers", "1"], stdout=log, stderr=log)
    time.sleep(3)
    worker = subprocess.Popen([locust, "-f", folder + "/users.py", "--worker", "--master-host", name, "--master-port",
                               str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(30):
            time.sleep(0.5)
            if "reported as ready" in open(log.name).read():
                return True
        return False
    finally:
        worker.kill(), master.kill(), worker.wait(), master.wait()


first = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)[0][4][0]
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
status = requests.get(f"http://localhost:{server.server_port}/", timeout=5).status_code
by_address, by_name = joins("127.0.0.1"), joins("localhost")
print(f"localhost is {first} first; an HTTP client of localhost reaches a server on 127.0.0.1: {status}")
print(f"worker with --master-host 127.0.0.1 joins: {by_address}; with localhost: {by_name}")
sys.exit(0 if (first, status, by_address, by_name) == ("::1", 200, True, False) else 1)
PY
unshare -rm sh -c 'mount --bind "$0/hosts" /etc/hosts && cd "$0" && exec venv/bin/python check.py "$0"' "$dir"
