"""gzip data, inflated within a bound."""

from __future__ import annotations

import zlib


class DamagedError(Exception):
    """The data is no gzip, damaged, or cut off."""


class TooLargeError(Exception):
    """What the data unpacks to is larger than the bound."""


def inflate(data: bytes, max_bytes: int, *, zlib_too: bool = False) -> bytes:
    """What gzip data (RFC 1952, any number of members) unpacks to, of at most `max_bytes`.

    zlib_too: take zlib data (RFC 1950) as well. Raises DamagedError and TooLargeError; never holds more than the bound.
    """
    out = b""
    rest = data
    while True:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | (32 if zlib_too else 16))
        try:
            part = inflater.decompress(rest, max_bytes + 1 - len(out))
        except zlib.error as error:
            raise DamagedError(str(error)) from error
        out = out + part if out else part
        if len(out) > max_bytes:
            raise TooLargeError
        if not inflater.eof:
            raise DamagedError("it is cut off")
        rest = inflater.unused_data
        if not rest:
            return out
