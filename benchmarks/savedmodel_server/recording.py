"""Files that hold a server's answers: gzip of JSON lines, so that another server can be held against them anywhere.

The first line is an object: server, version, recorded (date), models, flags, seed, form. Each further line is a list:
path, body as sent, status, content type, reply. A sixth element is the request's kind (asking.Request); without it,
the request is a POST. Bytes are written as text in UTF-8, and those that are none as lone surrogates ("\\udc80" is the
byte 80), as Python's surrogateescape does.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.savedmodel_server.asking import Answer, Request

FORM = "path, body as sent (POST), status, content type, reply as text[, kind of the request]"


class BadRecording(Exception):
    """A file is no recording; the message says why."""


def write(path: Path, header: dict[str, Any], answered: Iterable[tuple[Request, Answer]]) -> int:
    """Write a recording; the number of answers in it. The same answers make the same file."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(_line({**header, "form": FORM}))
        count = 0
        for request, answer in answered:
            count += 1
            fields = [
                request.path,
                _text(request.body),
                _number(answer.status),
                answer.content_type,
                _text(answer.body),
            ]
            packed.write(_line([*fields, request.kind]))
    return count


def read(path: Path) -> tuple[dict[str, Any], Iterator[tuple[Request, Answer]]]:
    """The header, and each request with its answer. Raises BadRecording."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        header = json.loads(lines[0])
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise BadRecording(f"{path} is not a recording: {error}") from error
    if not isinstance(header, dict) or "server" not in header:
        raise BadRecording(f"{path} is not a recording: its first line names no server.")
    return header, (_answered(number, line) for number, line in enumerate(lines[1:]))


def _answered(number: int, line: str) -> tuple[Request, Answer]:
    path, body, status, content_type, reply, *kind = json.loads(line)
    sent = _bytes(body)
    return Request(number, kind[0] if kind else post_kind(path, body), path, sent), Answer(
        str(status), content_type, _bytes(reply)
    )


def post_kind(path: str, body: str) -> str:
    """The kind of a request that was recorded without one: its method, and the signature that it names."""
    name = re.search(r'"signature_name"\s*:\s*"(\w*)"', body)
    return f"rest/{path.rpartition(':')[2]} {name[1] if name else 'without a signature'}"


def _line(document: Any) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _number(status: str) -> int | str:
    return int(status) if status.isdigit() else status


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
