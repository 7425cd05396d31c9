"""A load to a host whose packets vanish for a while: python vanishing_host.py rest|grpc, in a network namespace.

The host is a second namespace at the other end of a veth pair. While it has a blackhole route to us, what we send
arrives and nothing comes back, no ACK and no RST. Prints the outcome of each arrival as JSON, in their order.
"""

import json
import subprocess
import sys

from loadtests.generator import jobs
from loadtests.generator.addresses import resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.load import Target
from loadtests.generator.wire_grpc import message_bytes, request_headers
from loadtests.generator.wire_http1 import request_bytes
from tests.loadtests.generator.loads import accept_all, load, run
from tests.source_tree import TESTS

US, HOST = "10.77.0.1", "10.77.0.2"
EVERY_10_MS = range(0, 4_000_000_000, 10_000_000)
SILENT_FROM, SILENT_TO = 50, 200
"""Arrivals."""


def ip(*arguments, of=None):
    """Run `ip` here, or in the namespace of a process."""
    there = [] if of is None else ["nsenter", f"--net=/proc/{of}/ns/net"]
    subprocess.run([*there, "ip", *arguments], check=True)


def started_host():
    """The process of the host, and its REST and gRPC ports."""
    command = ["unshare", "--net", sys.executable, TESTS / "core" / "answering_server.py", "0.0.0.0"]
    host = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ports = [int(port) for port in host.stdout.readline().split()]
    ip("link", "add", "us", "type", "veth", "peer", "name", "host", "netns", str(host.pid))
    ip("address", "add", f"{US}/24", "dev", "us")
    ip("link", "set", "us", "up")
    ip("address", "add", f"{HOST}/24", "dev", "host", of=host.pid)
    ip("link", "set", "host", "up", of=host.pid)
    return host, ports


def target(grpc, port):
    if grpc:
        headers = request_headers("http", f"{HOST}:{port}", "/test.Service/Call", 10)
        request = PreparedRequest(headers, message_bytes(b"x"))
    else:
        request = PreparedRequest(request_bytes("POST", "/", "test", "image/png", b"x"))
    return Target([resolve(HOST, port, None)], [[request]], grpc, accept_all)


def main():
    grpc = sys.argv[1] == "grpc"
    host, ports = started_host()
    changes = [(SILENT_FROM, "add"), (SILENT_TO, "delete")]

    def meanwhile(generator):
        if changes and generator.fired >= changes[0][0]:
            ip("route", changes.pop(0)[1], "blackhole", f"{US}/32", of=host.pid)

    try:
        samples, _ = run(target(grpc, ports[grpc]), load(EVERY_10_MS, timeout_s=0.3), meanwhile=meanwhile)
    finally:
        host.kill()
    order = samples["scheduled_ns"].argsort()
    print(json.dumps([jobs.OUTCOMES[outcome] for outcome in samples["outcome"][order]]))


if __name__ == "__main__":
    main()
