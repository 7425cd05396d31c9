"""A DNS server on loopback that answers one name with many addresses, as Docker's does for a scaled service."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HEADER_BYTES = 12
_TYPE_A, _CLASS_IN = 1, 1
_TTL_S = 1
_RESPONSE = 0x8580
"""Flags of RFC 1035: response, authoritative, recursion desired and available, no error."""
_NAME_OF_THE_QUESTION = 0xC00C
"""A compressed name: a pointer to byte 12 of the message."""


def _answer(question: bytes, addresses: list[str]) -> bytes:
    end = question.index(b"\0", _HEADER_BYTES) + 1 + 4
    (kind,) = struct.unpack(">H", question[end - 4 : end - 2])
    records = addresses if kind == _TYPE_A else []
    head = question[:2] + struct.pack(">HHHHH", _RESPONSE, 1, len(records), 0, 0)
    body = b"".join(
        struct.pack(">HHHIH", _NAME_OF_THE_QUESTION, _TYPE_A, _CLASS_IN, _TTL_S, 4) + socket.inet_aton(address)
        for address in records
    )
    return head + question[_HEADER_BYTES:end] + body


@contextmanager
def dns_server(addresses: list[str]) -> Iterator[int]:
    """Every name has these IPv4 addresses while the block runs; gives the UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                question, caller = listener.recvfrom(65535)
                if not question:
                    return
                listener.sendto(_answer(question, addresses), caller)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.sendto(b"", listener.getsockname())
        thread.join()
