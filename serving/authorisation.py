"""Answers that refuse authorisation, over HTTP and gRPC: told apart from other failures, and named with the remedy."""

from __future__ import annotations

from typing import Final

REFUSED: Final = "refused authorisation"
REMEDY: Final = "send the endpoint's token, such as --header Authorization='Bearer env:TOKEN' (in a plan: headers)"

_STATUSES: Final = frozenset({401, 403})
_INVALID_KEY: Final = (400, b"InvalidKey")
"""TorchServe's InvalidKeyException: no token, a wrong one, or one that has expired."""
_GRPC_STATUSES: Final = frozenset({7, 16})
"""PERMISSION_DENIED and UNAUTHENTICATED."""


def refuses(status: int, body: bytes = b"") -> bool:
    """Whether an HTTP reply refuses authorisation."""
    return status in _STATUSES or (status == _INVALID_KEY[0] and _INVALID_KEY[1] in body)


def grpc_refuses(status: int | None, http_status: int = 200) -> bool:
    """Whether a gRPC reply does; a proxy may answer with an HTTP status in its place."""
    return status in _GRPC_STATUSES or http_status in _STATUSES


def reply_named(status: int, body: bytes = b"") -> str:
    """'HTTP 503', or 'refused authorisation (HTTP 401)'."""
    return f"{REFUSED} (HTTP {status})" if refuses(status, body) else f"HTTP {status}"
