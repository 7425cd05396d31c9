"""The address of the master: ZeroMQ connects to one address of a name only, so a worker finds the one that accepts."""

from __future__ import annotations

import logging
import socket
import time
from typing import Any, Final

from locust.rpc import zmqrpc

from serving.addresses import ResolvedAddress, resolve
from serving.connecting import NEXT_TRY_S, ConnectFailure, connect
from serving.errors import DeploymentError

WAIT_S: Final = 300.0
"""For a master that starts after its workers: as long as Locust itself tries."""
_PAUSE_S: Final = 0.5

logger = logging.getLogger("servestorm")


def install_master_address() -> None:
    """Let Locust's workers connect to the address of --master-host that accepts."""
    original = zmqrpc.Client

    def client(host: str, port: int, identity: str) -> Any:
        return original(master_address(host, port), port, identity)

    zmqrpc.Client = client


def master_address(host: str, port: int, wait_s: float = WAIT_S) -> str:
    """`host`, or its IPv4 address where that one accepts: of a name that has both, ZeroMQ would take IPv6's alone.

    A name of both is waited for, `wait_s` at most, until one of its addresses accepts.
    """
    try:
        address = resolve(host, port, None)
    except DeploymentError:
        return host  # Locust says so
    if {one.family for one in address.candidates} != {socket.AF_INET, socket.AF_INET6}:
        return host
    accepted = _accepts(address, wait_s)
    return (
        str(address.candidates[0].sockaddr[0]) if accepted and address.candidates[0].family == socket.AF_INET else host
    )


def _accepts(address: ResolvedAddress, wait_s: float) -> bool:
    """Whether one does, which is in front then."""
    until_s, said = time.monotonic() + wait_s, False
    while True:
        try:
            connect(address, NEXT_TRY_S * (len(address.candidates) + 1)).close()
            return True
        except ConnectFailure as error:
            if time.monotonic() >= until_s:
                return False
            if not said:
                logger.info("waiting for the master (%s): start it, or check --master-host and --master-port.", error)
                said = True
        time.sleep(_PAUSE_S)
