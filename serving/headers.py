"""Headers that are sent with every request to an endpoint: what a person wrote, checked, and the values behind it.

A header is written NAME=VALUE. The value is meant as it stands, or it is a reference, `env:NAME` or `file:PATH`, before
which one word may stand (`Bearer env:TOKEN`). `file:PATH#/a/b` takes a text from a JSON file (RFC 6901). Only
references are passed on to other processes and written down; what they lead to is read where requests are made, and no
message and no `repr` repeats it.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.errors import ServingError

Fields = Sequence[tuple[str, str]]
"""Names and values, as they are sent."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_GRPC_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_REFERENCE: Final = re.compile(r"(?:(?P<word>[A-Za-z][A-Za-z0-9_-]*) +)?(?P<kind>env|file):(?P<place>.*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FRAMING: Final = frozenset(
    {
        *("content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer"),
        *("upgrade", "http2-settings", "expect"),
    }
)
"""They describe the connection or the message (RFC 9110, 7.6.1; RFC 9113, 8.2.2): the generator writes them itself."""
_GRPC_OWN: Final = frozenset({"content-type", "content-encoding"})
_SECRET: Final = re.compile(
    r"(?<![a-z])auth(?![a-z])|authori[sz]|authenti|cookie|token(?!s)|secret|passw|credential|session|signature|"
    r"(?:api|access|subscription|functions)-?key",
    re.I,
)
_PASSWORD: Final = re.compile(r"//.*@")
_MOST_BYTES: Final = 16_000
"""Of all headers together; most servers take 8 or 16 KiB, and a frame of HTTP/2 holds 16 KiB."""


class HeaderUnreadable(ServingError):
    """A file that a header refers to cannot be read, or not yet."""


def names_secret(name: str) -> bool:
    """Whether a header, or a parameter of an address, of this name usually holds a secret."""
    return _SECRET.search(name.replace("_", "-")) is not None


@dataclass(frozen=True)
class Header:
    """One header as it was written; `parse` makes it."""

    name: str
    _source: str = field(repr=False)
    """What stands before the reference, and the reference; or the value."""
    where: str = "--header"
    """The option or the key of a plan that it comes from, for messages."""

    @classmethod
    def parse(cls, name: str, source: str, where: str = "--header") -> Header:
        """Check a name and what stands for its value. Raises ServingError, which repeats no value."""
        if not _TOKEN.fullmatch(name):
            raise ServingError(
                f"{where} holds a name that is none (letters, digits and -): write NAME=VALUE, such as "
                "Authorization='Bearer env:TOKEN'; Host also sets :authority over gRPC."
            )
        if name.lower() in _FRAMING:
            raise ServingError(
                f"{where} {name} is refused: it belongs to the connection, and servestorm writes it itself; leave it "
                "out."
            )
        header = cls(name, source, where)
        if found := header._reference():
            if found["kind"] == "env" and not _VARIABLE.fullmatch(found["place"]):
                raise ServingError(f"{where} {name} does not name a variable after env: write env:NAME.")
            if not found["place"]:
                raise ServingError(f"{where} {name} does not name a file after file: write file:PATH.")
        else:
            header._checked(source)
        return header

    @property
    def refers(self) -> bool:
        """Whether its value is somewhere else."""
        return self._reference() is not None

    @property
    def looks_secret(self) -> bool:
        """Whether its name is that of a secret."""
        return names_secret(self.name)

    @property
    def written(self) -> str:
        """NAME=VALUE for another process, which may have another working directory."""
        found = self._reference()
        if found and found["kind"] == "file":
            before = f"{found['word']} " if found["word"] else ""
            return f"{self.name}={before}file:{Path(found['place']).absolute()}"
        return f"{self.name}={self._source}"

    def read(self) -> str:
        """The value as it is sent: in base64 where the name ends with -bin, as gRPC wants it.

        Raises ServingError where there is none, HeaderUnreadable where the file cannot be read.
        """
        if self.name.lower().endswith("-bin"):
            return base64.b64encode(self._bytes()).decode().rstrip("=")
        return self._text()

    def _text(self) -> str:
        found = self._reference()
        if not found:
            return self._checked(self._source)
        value = (self._of_variable if found["kind"] == "env" else self._of_file)(found["place"])
        return self._checked(f"{found['word']} {value}" if found["word"] else value)

    def _bytes(self) -> bytes:
        """A file may hold any."""
        found = self._reference()
        if not found or found["kind"] != "file" or found["word"] or "#/" in found["place"]:
            return self._text().encode()
        try:
            return Path(found["place"]).read_bytes()
        except OSError as error:
            raise self._unreadable(found["place"], error.strerror) from None

    def _unreadable(self, path: str, reason: str | None) -> HeaderUnreadable:
        return HeaderUnreadable(
            f"{self.where} {self.name} refers to file:{path}, which cannot be read ({reason}): give a file that holds "
            "the value alone."
        )

    def _reference(self) -> re.Match[str] | None:
        return _REFERENCE.fullmatch(self._source)

    def _of_variable(self, variable: str) -> str:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise ServingError(
                f"{self.where} {self.name} refers to env:{variable}, which is not set here: export {variable} first."
            )
        return value

    def _of_file(self, place: str) -> str:
        path, sign, pointer = place.partition("#/")
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise self._unreadable(path, getattr(error, "strerror", None) or "it is no text") from None
        value = _pointed_at(text, pointer) if sign else text
        if not value:
            what = f"no text at #/{pointer}" if sign else "nothing"
            raise HeaderUnreadable(f"{self.where} {self.name} refers to file:{path}, which holds {what}: correct it.")
        return value

    def _checked(self, value: str) -> str:
        if not _VALUE.fullmatch(value):
            raise ServingError(
                f"{self.where} {self.name} has a value with a line break or another character that a header cannot "
                "hold: give one line of printable ASCII."
            )
        return value.strip()


def _pointed_at(text: str, pointer: str) -> str | None:
    """The text at a JSON Pointer (RFC 6901) without its first slash; None where there is none."""
    try:
        found = json.loads(text)
        for escaped in pointer.split("/"):
            key = escaped.replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
    except (ValueError, LookupError, TypeError):
        return None
    return found.strip() if isinstance(found, str) else None


@dataclass(frozen=True)
class Headers:
    """All headers of an endpoint, in the order in which they were given."""

    each: tuple[Header, ...] = ()

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Headers:
        """Raise ServingError where one is given twice."""
        each = tuple(headers)
        names = [header.name.lower() for header in each]
        for header in each:
            if names.count(header.name.lower()) > 1:
                raise ServingError(f"{header.where} {header.name} is given twice: give one value.")
        return cls(each)

    @classmethod
    def of_options(cls, texts: Iterable[str] | None, option: str = "--header") -> Headers:
        """Of NAME=VALUE texts from a command line. Raises ServingError, which repeats no value."""
        pairs = [text.partition("=") for text in texts or ()]
        if any(not sign for _, sign, _ in pairs):
            raise ServingError(f"{option} holds no =: write NAME=VALUE, such as Authorization='Bearer env:TOKEN'.")
        return cls.of(Header.parse(name.strip(), value.strip(), option) for name, _, value in pairs)

    @classmethod
    def of_mapping(cls, headers: Mapping[str, str], where: str) -> Headers:
        """Of names and values from a file that is kept. Raises ServingError, also for a secret that stands in it."""
        found = cls.of(Header.parse(name, value.strip(), where) for name, value in headers.items())
        for header in found.each:
            if header.looks_secret and not header.refers:
                raise ServingError(
                    f"{where} {header.name} has its value in the plan, which is copied into the run directory: refer "
                    "to it with env:NAME or file:PATH."
                )
        return found

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.each)

    @property
    def exposed(self) -> list[str]:
        """A sentence for each secret that stands on a command line."""
        return [
            f"{header.where} {header.name} has its value on the command line, which every user of this machine can "
            "read: refer to it with env:NAME or file:PATH."
            for header in self.each
            if header.looks_secret and not header.refers
        ]

    @property
    def written(self) -> list[str]:
        """NAME=VALUE of each for another process: references stay references."""
        return [header.written for header in self.each]

    def read(self) -> Fields:
        """Names and values for HTTP/1.1. Raises ServingError where one cannot be read, or they are too long."""
        return self._short([(header.name, header.read()) for header in self.each])

    def metadata(self) -> Fields:
        """Names in lower case and values for gRPC; `host` stands for :authority.

        Raises ServingError as `read` does, and for a name that gRPC keeps for itself.
        """
        return self._short([(_grpc_name(header), header.read()) for header in self.each])

    def check_for_grpc(self) -> None:
        """Raise ServingError for a name that gRPC keeps for itself; no value is read."""
        for header in self.each:
            _grpc_name(header)

    def _short(self, fields: Fields) -> Fields:
        if (size := sum(len(name) + len(value) + 4 for name, value in fields)) > _MOST_BYTES:
            raise ServingError(f"{self.each[0].where}: the headers have {size:,} bytes in all, over {_MOST_BYTES:,}.")
        return fields


NO_HEADERS: Final = Headers()


def _grpc_name(header: Header) -> str:
    name = header.name.lower()
    if name.startswith("grpc-") or name in _GRPC_OWN or not _GRPC_NAME.fullmatch(name):
        raise ServingError(
            f"{header.where} {header.name} is refused over gRPC, which keeps grpc-* and content-type for itself and "
            "takes letters, digits, - _ and . in names: leave it out, or use another name."
        )
    return name


def merged(own: Fields, headers: Fields) -> list[tuple[str, str]]:
    """Our own fields, of which those with a name that is given too are replaced, and the other ones after them."""
    given = {name.lower(): (name, value) for name, value in headers}
    replaced = [(name, given.pop(name.lower(), (name, value))[1]) for name, value in own]
    return [*replaced, *given.values()]


def without_values(arguments: Sequence[str], option: str = "--header") -> list[str]:
    """A command line for a report of a fault, without the values of headers, and without passwords in addresses."""
    shown, hides = [], False
    for argument in arguments:
        name, sign, rest = argument.partition("=")
        if hides:
            shown.append(_named_only(argument))
        elif name == option and sign:
            shown.append(f"{option}={_named_only(rest)}")
        else:
            shown.append(_PASSWORD.sub("//...@", argument))
        hides = argument == option and not hides
    return shown


def _named_only(text: str) -> str:
    name, sign, _ = text.partition("=")
    return f"{name}=..." if sign and _TOKEN.fullmatch(name) else "..."
