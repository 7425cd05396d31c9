"""File descriptors that a load needs: counted before it starts, so that no request fails for the lack of one."""

from __future__ import annotations

from typing import Final

from loadtests.errors import LoadEnvironmentError
from loadtests.generator.load import LoadSpec
from serving.descriptors import allow_descriptors, open_descriptors

RESERVED: Final = 32
"""Never used for connections: sample files, scrapes of --metrics-port, the web page, --endpoints-file."""


def connections_an_endpoint(load: LoadSpec) -> int:
    """Most connections that a load opens to one endpoint: it needs no more than it has requests under way."""
    under_way = load.closed_loop or min(load.max_in_flight, load.give_up_in_flight or load.max_in_flight)
    return min(load.connections, under_way)


def require_descriptors(load: LoadSpec, endpoints: int, *, more_to_come: bool) -> None:
    """Raise this process's limit on open files to what the load needs.

    `more_to_come`: endpoints may be added, so the limit is raised as far as it goes. Raises LoadEnvironmentError where
    the hard limit is too low.
    """
    each = connections_an_endpoint(load)
    needed = open_descriptors() + RESERVED + each * endpoints
    limit = allow_descriptors(None if more_to_come else needed)
    if limit < needed:
        targets = f"{endpoints} endpoints" if endpoints > 1 else "the endpoint"
        raise LoadEnvironmentError(
            f"{each} connections to {targets} need {needed} open files, and this process may have {limit}: raise the "
            f"hard limit (ulimit -n {needed}), or lower --connections or --max-in-flight."
        )


def spare_descriptors() -> int:
    """How many connections may be opened without using what is reserved."""
    return max(allow_descriptors(0) - open_descriptors() - RESERVED, 0)
