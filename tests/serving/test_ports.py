"""Ports: free ones are found, taken ones are told."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving import ports
from serving.errors import DeploymentError


@pytest.fixture
def listener():
    with socket.socket() as taken:
        taken.bind((ports.HOST, ports.free_ports(1)[0]))
        taken.listen()
        yield taken.getsockname()[1]


def test_free_ports_differ_lie_outside_the_ephemeral_range_and_can_be_bound():
    found = ports.free_ports(50)
    low, high = ports._ephemeral_range()
    assert len(set(found)) == 50
    assert all(not low <= port <= high for port in found)
    ports.require_free(found)


def test_a_port_is_never_given_twice(monkeypatch):
    first = ports.free_ports(1)[0]
    monkeypatch.setattr(ports, "_candidates", lambda: range(first, first + 1))
    with pytest.raises(DeploymentError, match="no 1 free ports left"):
        ports.free_ports(1)


def test_a_port_that_is_listened_on_is_not_free(listener, monkeypatch):
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(ports, "_candidates", lambda: range(listener, listener + 1))
    with pytest.raises(DeploymentError, match="no 1 free ports left"):
        ports.free_ports(1)


def test_a_port_is_bound_while_somebody_listens(listener):
    assert ports.is_bound(listener)
    assert not ports.is_bound(ports.free_ports(1)[0])


def test_a_taken_port_whose_holder_is_hidden_is_still_told(listener, monkeypatch):
    monkeypatch.setattr(ports, "holder", lambda _port: None)
    with pytest.raises(DeploymentError, match=f"port {listener} .* in use by another process"):
        ports.require_free([listener])


def test_a_proxy_that_hangs_up_at_once_does_not_pass_for_a_server():
    with socket.socket() as proxy, ThreadPoolExecutor(1) as pool:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()

        def hang_up():
            proxy.accept()[0].close()

        hung_up = pool.submit(hang_up)
        assert not ports.stays_open(*proxy.getsockname(), hold_s=30)
        hung_up.result()
        assert ports.stays_open(*proxy.getsockname())  # nobody takes it: the backlog keeps it open
    assert not ports.stays_open("127.0.0.1", ports.free_ports(1)[0])


def test_an_address_is_bound_where_it_says(listener):
    assert ports.is_bound_at(f"127.0.0.1:{listener}")
    assert not ports.is_bound_at(f"127.0.0.2:{listener}")
    assert not ports.is_bound_at("127.0.0.1:")


@pytest.fixture
def listener_on_ipv6():
    """Port of a server that listens on ::1 alone."""
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.bind(("::1", ports.free_ports(1)[0]))
        except OSError:
            pytest.skip("this machine has no ::1")
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_is_taken_on_ipv6_alone_is_not_free(listener_on_ipv6):
    with pytest.raises(DeploymentError, match=f"port {listener_on_ipv6} on ::1 is in use by"):
        ports.require_free([listener_on_ipv6])


def test_an_address_of_ipv6_is_looked_at(listener_on_ipv6):
    assert ports.is_bound(listener_on_ipv6, host="::1")
    assert ports.is_bound_at(f"[::1]:{listener_on_ipv6}")
    assert ports.stays_open("::1", listener_on_ipv6)
    assert not ports.is_bound(listener_on_ipv6)


def test_an_address_that_the_machine_does_not_have_takes_no_port():
    assert ports._is_free(socket.AF_INET6, "2001:db8::1", 0)
