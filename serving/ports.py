"""Ports on 127.0.0.1 and ::1: finding free ones, and naming who holds a taken one."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from serving.errors import DeploymentError

HOST = "127.0.0.1"
_LOWEST = 10240
_HIGHEST = 65535
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOOPBACKS = ((socket.AF_INET, HOST), (socket.AF_INET6, "::1"))
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_random = random.SystemRandom()
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """`count` different ports that nothing listens on and that this process was not given before.

    They lie outside the range that the kernel gives to outgoing connections: one of a load generator's own
    could otherwise take the port before the server binds it. Raises DeploymentError where none is left.
    """
    candidates = [port for port in _candidates() if port not in _given]
    _random.shuffle(candidates)
    ports: list[int] = []
    for port in candidates:
        if len(ports) == count:
            break
        if _bindable(port):
            ports.append(port)
    if len(ports) < count:
        raise DeploymentError(f"{HOST} has no {count} free ports left: stop some servers.")
    _given.update(ports)
    return ports


def _candidates() -> range:
    low, high = _ephemeral_range()
    return range(_LOWEST, low) if low - _LOWEST > 1000 else range(min(high + 1, _HIGHEST - 1000), _HIGHEST)


def _ephemeral_range() -> tuple[int, int]:
    try:
        low, high = _EPHEMERAL_RANGE.read_text().split()
    except (OSError, ValueError):
        return 32768, 60999
    return int(low), int(high)


def require_free(ports: Iterable[int]) -> None:
    """Raise DeploymentError naming the first port of `ports` that is taken, and its holder where known."""
    for port in ports:
        if taken := _taken_at(port):
            raise DeploymentError(
                f"port {port} on {taken} is in use by {holder(port) or 'another process'}: "
                "stop that process or choose another port."
            )


def _bindable(port: int) -> bool:
    return not _taken_at(port)


def _taken_at(port: int) -> str | None:
    """The loopback address at which a server may not take the port: a name of both leads to whoever has either."""
    return next((host for family, host in _LOOPBACKS if not _is_free(family, host, port)), None)


def _is_free(family: int, host: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT can be bound
            probe.bind((host, port))
    except OSError as error:
        return error.errno in _NO_FAMILY
    return True


def holder(port: int) -> str | None:
    """Name and pid of the process that listens on `port`; None where that is not ours to see."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            listens = connection.status == psutil.CONN_LISTEN and address and address.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None


def is_bound(port: int, timeout_s: float = 0.2, host: str = HOST) -> bool:
    """True where something accepts connections on `port` of `host`."""
    try:
        # every address that the name of a host has
        with socket.create_connection((host, port), timeout_s) as probe:
            # Connecting to a free port can meet itself where the kernel picks that very port as the source.
            return bool(probe.getsockname() != probe.getpeername())
    except OSError:
        return False


def is_bound_at(address: str) -> bool:
    """True where something accepts connections at `address`, host:port or [IPv6 address]:port."""
    host, _, port = address.rpartition(":")
    return port.isdecimal() and is_bound(int(port), host=host.strip("[]") or HOST)


def stays_open(host: str, port: int, hold_s: float = 0.05) -> bool:
    """True where a connection is accepted and not closed at once.

    A proxy of published ports accepts before the server behind it listens, and hangs up then.
    """
    try:
        probe = socket.create_connection((host, port), 0.2)
    except OSError:
        return False
    with probe:
        try:
            probe.settimeout(hold_s)
            return bool(probe.recv(1))
        except TimeoutError:
            return True
        except OSError:
            return False
