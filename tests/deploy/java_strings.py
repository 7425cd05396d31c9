"""The string literals of a compiled Java class: chapter 4 of the Java Virtual Machine Specification."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

_UTF8, _STRING = 1, 8
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
_TWO_PLACES = (5, 6)
_POOL_AT = 10
"""After the magic number, the version and the pool's count."""


def strings(jar: Path, name: str) -> set[str]:
    """Every string literal and string constant of class `name` (with slashes) in `jar`."""
    with zipfile.ZipFile(jar) as archive:
        code = archive.read(f"{name}.class")
    (count,) = struct.unpack(">H", code[8:_POOL_AT])
    texts: dict[int, str] = {}
    literals: set[int] = set()
    at, index = _POOL_AT, 1
    while index < count:
        kind = code[at]
        if kind == _UTF8:
            (length,) = struct.unpack(">H", code[at + 1 : at + 3])
            texts[index] = code[at + 3 : at + 3 + length].decode("utf-8", "replace")
            at += 3 + length
        else:
            if kind == _STRING:
                literals.update(struct.unpack(">H", code[at + 1 : at + 3]))
            at += 1 + _SIZES[kind]
        index += 2 if kind in _TWO_PLACES else 1
    return {texts[literal] for literal in literals}
