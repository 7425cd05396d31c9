"""Ports: free ones are found, taken ones are told."""

from __future__ import annotations

import socket

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
