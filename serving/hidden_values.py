"""Values of headers in what a server answers: one may repeat the token that it refuses, and messages quote replies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from serving.headers import Fields, Headers

_HEAD: Final = 6
"""So many characters of a secret are enough to hide it: the end of a quotation may cut it."""
_SHORTEST: Final = 4
_SCHEMES: Final = frozenset({"basic", "bearer", "digest", "apikey", "token"})
"""Of authorisation: they stand before a secret, and are none."""


@dataclass(frozen=True)
class HiddenValues:
    """The secrets among the headers that were sent; neither a message nor this object's `repr` shows them."""

    _secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, headers: Headers, sent: Fields) -> HiddenValues:
        """`sent` are the names and values that `headers` were read as, in their order."""
        return cls(tuple(_secrets(headers, sent)))

    def out_of(self, text: str) -> str:
        """The text with `...` in the place of each secret, and of the beginning of one that a quotation cuts."""
        for secret in self._secrets:
            place = text.find(secret[:_HEAD])
            while place >= 0:
                after = place + _common(secret, text[place:])
                text = f"{text[:place]}...{text[after:]}"
                place = text.find(secret[:_HEAD], place + len("..."))
        return text


NOTHING_HIDDEN: Final = HiddenValues()


def _common(secret: str, text: str) -> int:
    """How many characters at their begin are the same."""
    pairs = enumerate(zip(secret, text, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(secret), len(text)))


def _secrets(headers: Headers, sent: Fields) -> Iterator[str]:
    """What stands somewhere else, or has the name of a secret; a text such as `Bearer` before it is none."""
    for header, (_, value) in zip(headers.each, sent, strict=True):
        if header.refers or header.looks_secret:
            yield from (part for part in value.split() if len(part) >= _SHORTEST and part.lower() not in _SCHEMES)
