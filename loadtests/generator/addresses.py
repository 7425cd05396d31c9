"""Endpoints of a load: `serving.addresses`, whose errors are here those of a load."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from loadtests.errors import LoadEnvironmentError, LoadTestError
from serving import addresses
from serving.addresses import ResolvedAddress
from serving.connecting import prefer_what_accepts
from serving.errors import DeploymentError, ServingError


@contextmanager
def as_load_errors() -> Iterator[None]:
    """Raise LoadEnvironmentError where the block raises a DeploymentError, LoadTestError for another ServingError."""
    try:
        yield
    except DeploymentError as error:
        raise LoadEnvironmentError(str(error)) from error
    except ServingError as error:
        raise LoadTestError(str(error)) from error


def endpoint_url(text: str) -> str:
    """See serving.addresses; raises LoadTestError."""
    with as_load_errors():
        return addresses.endpoint_url(text, " (engine http takes --http-path)")


def grpc_target(text: str) -> str:
    """See serving.addresses; raises LoadTestError."""
    with as_load_errors():
        return addresses.grpc_target(text)


def resolve(host: str, port: int, tls: ssl.SSLContext | None) -> ResolvedAddress:
    """All addresses of a name, the first that accepts connections in front; LoadEnvironmentError if it has none."""
    with as_load_errors():
        return prefer_what_accepts(addresses.resolve(host, port, tls))
