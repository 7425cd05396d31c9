"""A worker finds its master where --master-host has several addresses."""

import socket
import subprocess
import sys

import pytest

PROGRAM = """
import socket, sys
from loadtests.locust_side.master_address import install_master_address
from locust.rpc import zmqrpc
from locust.rpc.protocol import Message

real = socket.getaddrinfo
def both(host, port, *rest, **more):
    if host != "master.test":
        return real(host, port, *rest, **more)
    return [(socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]
socket.getaddrinfo = both

install_master_address()
master = zmqrpc.Server("127.0.0.1", 0)
zmqrpc.Client("master.test", master.port, "me").send(Message("hello", {}, "me"))
assert master.socket.poll(60_000), "nothing arrived"
print(master.recv_from_client()[1].type)
"""


def test_a_worker_reaches_a_master_on_ipv4_alone_by_a_name_that_is_ipv6_first():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "hello", done.stderr


@pytest.mark.parametrize(
    ("families", "listens", "expected"),
    [
        ((socket.AF_INET6, socket.AF_INET), True, "127.0.0.1"),
        ((socket.AF_INET6, socket.AF_INET), False, "master.test"),
        ((socket.AF_INET,), True, "master.test"),
        ((socket.AF_INET6,), True, "master.test"),
    ],
)
def test_only_a_name_of_both_families_is_looked_at(families, listens, expected):
    program = f"""
import socket
from loadtests.locust_side.master_address import master_address
places = {{socket.AF_INET6: ("::1",), socket.AF_INET: ("127.0.0.1",)}}
taken = socket.socket()
taken.bind(("127.0.0.1", 0))
if {listens}:
    taken.listen()
socket.getaddrinfo = lambda _host, port, **_: [
    (family, 1, 6, "", (*places[family], port)) for family in {[int(family) for family in families]}
]
print(master_address("master.test", taken.getsockname()[1], wait_s=0))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == expected, done.stderr
