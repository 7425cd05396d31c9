"""Numbers of versions, as folders and URLs name them."""

from __future__ import annotations

_LARGEST = 2**63 - 1


def version_number(text: str) -> int | None:
    """The number that decimal digits are, as an int64; None for anything else, however long."""
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0")
    if len(digits) > len(str(_LARGEST)):
        return None
    number = int(digits or "0")
    return number if number <= _LARGEST else None
