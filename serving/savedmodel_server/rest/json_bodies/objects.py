"""JSON objects that name a key twice."""

from __future__ import annotations

from typing import Any


class DoubledObject(dict[str, Any]):
    """An object that names a key twice: the mapping has each key's first value, `members` has them all, in order."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.members = members
        for name, value in members:
            self.setdefault(name, value)


def members_of(value: dict[str, Any]) -> list[tuple[str, Any]]:
    """The keys and values of an object as they were sent, doubled ones too."""
    return value.members if isinstance(value, DoubledObject) else list(value.items())
