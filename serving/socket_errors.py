"""What errors of sockets are called, in a summary and in a sentence."""

from __future__ import annotations

import errno
import os
import ssl
from typing import Final

TOO_FEW_DESCRIPTORS: Final = "no file descriptor left (ulimit -n)"
"""What a request failed of that the generator had no socket for."""
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""How OpenSSL calls bytes that are no TLS."""
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)


def errno_reason(code: int | None, doing: str) -> str:
    """The reason of a request that failed of this errno; `doing` is connect, send or receive."""
    if code == errno.ECONNREFUSED:
        return "connection refused"
    if code in (errno.ECONNRESET, errno.EPIPE):
        return "connection reset"
    if code in NO_DESCRIPTOR:
        return TOO_FEW_DESCRIPTORS
    return f"{doing}: {os.strerror(code) if code else 'failed'}"


def tls_failure(error: OSError) -> str:
    """Why there is no TLS with a server, such as 'TLS handshake failed (WRONG_VERSION_NUMBER)'."""
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    if reason in _NO_TLS:
        reason = f"{reason}: it does not speak TLS"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"{reason}: {error.verify_message.rstrip('.')}"
    return f"TLS handshake failed ({reason})"
