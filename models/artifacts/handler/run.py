"""Ask an archive's handler for its answers, in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.answers import AnswerError, AnswerNames, document_of, excerpt, rows
from models.artifacts.foreign_archive import MANIFEST, read_small, require_archive, unpack
from models.artifacts.handler import worker
from models.errors import ModelError

TIMEOUT_S = 900
MOST_REPLY_BYTES = 256 << 20
"""Of all replies together, which are read into memory."""
_OK = 200
_PASSED_ON = (
    *("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    "SERVESTORM_OWNER",  # by it the handler of an import that is killed is found, and ended
)
"""All that a foreign handler sees of our environment: it may hold passwords and tokens."""
_LAST_BYTES = 64 << 10


class HandlerFailed(ModelError):
    """The archive's handler cannot be run here, or does not answer with numbers."""


def run_handler(mar: Path, images: Sequence[bytes], batch_sizes: Sequence[int] = (1,)) -> list[dict[str, Any]]:
    """Replies of the handler in `mar` to encoded images, one {"status": int, "body": bytes} each.

    `batch_sizes` are taken in turn, the last one repeats. Raises HandlerFailed where the archive is not a zip
    archive made by torch-model-archiver, or where its handler does not load or raises. The handler runs as a process of
    ours, with our rights, but without our environment: PATH, the locale and the like, and a HOME of its own.
    """
    with tempfile.TemporaryDirectory(prefix="servestorm-handler-") as name:
        folder = Path(name)
        archive_manifest(mar)
        unpack(mar, folder / "model")
        (folder / "images").mkdir()
        for index, image in enumerate(images):
            (folder / "images" / f"{index:06d}").write_bytes(image)
        answer = _run_worker(folder, ",".join(map(str, batch_sizes)))
        replies = folder / "replies.json"
        if replies.is_file() and replies.stat().st_size > MOST_REPLY_BYTES:
            raise HandlerFailed(f"The handler of {mar.name} answers with more than {MOST_REPLY_BYTES >> 20} MiB.")
        try:
            return _replies(json.loads(replies.read_text()), mar.name)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise HandlerFailed(f"The handler of {mar.name} ended its process: {answer}") from error


def _replies(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """What the worker wrote, if no handler has written over it."""
    if "failed" in result:
        verb = "cannot be loaded" if result["failed"] == "load" else "failed"
        raise HandlerFailed(f"The handler of {name} {verb} here: {_one_line(result['error'])}")
    return [{"status": reply["status"], "body": base64.b64decode(reply["body"])} for reply in result["replies"]]


def _run_worker(folder: Path, batch_sizes: str) -> str:
    """Run the worker; returns the last line it wrote to stderr, which may be endless and so goes to a file."""
    shutil.copy(worker.__file__, folder / "worker.py")
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"HOME": str(folder), "TEMP": str(folder), "TMPDIR": str(folder)}
    command = [sys.executable, "-P", str(folder / "worker.py"), str(folder), batch_sizes]
    with (folder / "messages").open("w+b") as messages:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise HandlerFailed(f"The handler did not finish within {TIMEOUT_S} s.") from error
        messages.seek(max(0, messages.seek(0, os.SEEK_END) - _LAST_BYTES))
        last = messages.read().decode("utf-8", "replace").strip()
    return _one_line((last or f"exit status {done.returncode}").splitlines()[-1])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def archive_manifest(mar: Path, called: Path | None = None) -> dict[str, Any]:
    """MANIFEST.json of an archive in zip format. Raises ModelError where `mar` is missing or none.

    `called` is what a message names instead, where `mar` was made of it.
    """
    require_archive(mar)
    named_as = called or mar
    try:
        manifest: dict[str, Any] = json.loads(read_small(mar, MANIFEST) or b"")
        named = [manifest["model"][key] for key in ("modelName", "handler")]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{named_as} has no MAR-INF/MANIFEST.json that names a model and its handler: make it with "
            "torch-model-archiver."
        ) from error
    if not all(isinstance(name, str) for name in named):
        raise ModelError(
            f"{named_as} names no handler in its MAR-INF/MANIFEST.json: make it with torch-model-archiver."
        )
    return manifest


def probabilities(replies: Sequence[dict[str, Any]], names: AnswerNames) -> NDArray[np.float64]:
    """The numbers in a handler's replies to one image each, float64 of (n, values), read as a load reads them.

    Raises HandlerFailed for a reply in no form of models.answers.
    """
    found = [_answer(reply, names) for reply in replies]
    if len({row.shape for row in found}) != 1:
        raise HandlerFailed("The handler's replies differ in length.")
    return np.concatenate(found)


def _answer(reply: dict[str, Any], names: AnswerNames) -> NDArray[np.float64]:
    """(1, values)"""
    status, body = reply["status"], reply["body"]
    if status != _OK:
        raise HandlerFailed(f"The handler answered an image with status {status}: {excerpt(body)}")
    try:
        return rows(document_of(body), names, images=1)
    except AnswerError as error:
        raise HandlerFailed(f"The handler's answer cannot be compared: {error}") from error
