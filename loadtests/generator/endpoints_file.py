"""Endpoints that come and go while a load runs: a JSON file lists them, and is looked at again and again.

[{"rest": "http://10.0.0.5:8501", "grpc": "10.0.0.5:8500"}, ...]

Whoever writes it puts a whole new file in its place (write beside it, then rename). Other keys of an entry are ignored.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from loadtests.errors import LoadTestError
from loadtests.generator.addresses import endpoint_url, grpc_target
from loadtests.generator.connections import PreparedRequest
from serving.addresses import ResolvedAddress

LOOK_EVERY_S: Final = 0.2

Made = tuple[ResolvedAddress, list[PreparedRequest]]
"""An endpoint as the generator knows it: where it listens, and each prepared request."""

logger = logging.getLogger("servestorm")


class EndpointsFile:
    """The file, of which one protocol's addresses are read."""

    def __init__(self, path: Path, grpc: bool) -> None:
        self.path = path
        self._key = "grpc" if grpc else "rest"
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> list[str]:
        """The addresses in it, each once. Raises LoadTestError naming the fault."""
        try:
            self._seen = self._stamp()
            listed = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise LoadTestError(f"--endpoints-file {self.path} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise LoadTestError(f"--endpoints-file {self.path} is not JSON: {error}.") from error
        if not isinstance(listed, list):
            raise LoadTestError(f"--endpoints-file {self.path} is not a JSON list of endpoints.")
        return list(dict.fromkeys(self._address(number, entry) for number, entry in enumerate(listed, 1)))

    def changed(self) -> list[str] | None:
        """The addresses, where the file is another one than at the last look; None where it is not, or has a fault."""
        try:
            if self._stamp() == self._seen:
                return None
            return self.read()
        except OSError as error:
            fault = f"--endpoints-file {self.path} cannot be read: {error.strerror}."
            stamp = None
        except LoadTestError as error:
            fault, stamp = str(error), self._seen
        if stamp is not None or self._seen is not None:
            logger.warning("%s The endpoints stay as they were.", fault)
        self._seen = stamp
        return None

    def _stamp(self) -> tuple[int, int, int]:
        status = self.path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _address(self, number: int, entry: Any) -> str:
        address = entry.get(self._key) if isinstance(entry, dict) else None
        if not isinstance(address, str) or not address:
            raise LoadTestError(f'endpoint {number} in --endpoints-file {self.path} has no "{self._key}".')
        try:
            return grpc_target(address) if self._key == "grpc" else endpoint_url(address)
        except LoadTestError as error:
            raise LoadTestError(f"endpoint {number} in --endpoints-file {self.path}: {error}") from error


class Follower:
    """Tells a generator which endpoints are listed, as often as that changes.

    Indexes never change: a new endpoint gets the next one, and one that returns has the one that it had. An empty list
    changes nothing, because a request has to go somewhere.
    """

    def __init__(
        self,
        file: EndpointsFile,
        names: list[str],
        make: Callable[[str], Made],
        relist: Callable[[Sequence[int], Sequence[Made]], None],
    ) -> None:
        self._file, self._make, self._relist = file, make, relist
        self._names = names
        """Every endpoint that ever was, in the order of the indexes; it grows."""
        self._next_look_s = 0.0

    def look(self) -> None:
        """Call it often: it looks every LOOK_EVERY_S."""
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        if listed := self._file.changed():
            made = {name: each for name in listed if name not in self._names and (each := self._made(name))}
            self._names.extend(made)
            places = [self._names.index(name) for name in listed if name in self._names]
            if places:
                self._relist(places, list(made.values()))

    def _made(self, name: str) -> Made | None:
        try:
            return self._make(name)
        except LoadTestError as error:
            logger.warning("%s It gets no request.", error)
            return None
