"""Ask an archive's handler for its answers, in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.answers import AnswerError, AnswerNames, document_of, excerpt, rows
from models.artifacts.handler import worker
from models.errors import ModelError

TIMEOUT_S = 900
_OK = 200


class HandlerFailed(ModelError):
    """The archive's handler cannot be run here, or does not answer with numbers."""


def run_handler(mar: Path, images: Sequence[bytes], batch_sizes: Sequence[int] = (1,)) -> list[dict[str, Any]]:
    """Replies of the handler in `mar` to encoded images, one {"status": int, "body": bytes} each.

    `batch_sizes` are taken in turn, the last one repeats. Raises HandlerFailed where the archive is not a zip
    archive made by torch-model-archiver, or where its handler does not load or raises.
    """
    with tempfile.TemporaryDirectory(prefix="servestorm-handler-") as name:
        folder = Path(name)
        archive_manifest(mar)
        _unzip(mar, folder / "model")
        (folder / "images").mkdir()
        for index, image in enumerate(images):
            (folder / "images" / f"{index:06d}").write_bytes(image)
        answer = _run_worker(folder, ",".join(map(str, batch_sizes)))
        try:
            result = json.loads((folder / "replies.json").read_text())
        except (OSError, ValueError) as error:
            raise HandlerFailed(f"The handler of {mar.name} ended its process: {answer}") from error
    if "failed" in result:
        verb = "cannot be loaded" if result["failed"] == "load" else "failed"
        raise HandlerFailed(f"The handler of {mar.name} {verb} here: {_one_line(result['error'])}")
    return [{"status": reply["status"], "body": base64.b64decode(reply["body"])} for reply in result["replies"]]


def _run_worker(folder: Path, batch_sizes: str) -> str:
    """Run the worker; returns the last line it wrote."""
    shutil.copy(worker.__file__, folder / "worker.py")
    environment = {**os.environ, "TEMP": str(folder), "TMPDIR": str(folder), "PYTHONPATH": ""}
    command = [sys.executable, "-P", str(folder / "worker.py"), str(folder), batch_sizes]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HandlerFailed(f"The handler did not finish within {TIMEOUT_S} s.") from error
    return _one_line((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _unzip(mar: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(mar) as archive:
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{mar} is damaged ({error}): make or copy it again.") from error


def archive_manifest(mar: Path) -> dict[str, Any]:
    """MANIFEST.json of an archive. Raises ModelError where `mar` is missing or none."""
    try:
        with zipfile.ZipFile(mar) as archive:
            manifest: dict[str, Any] = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        named = [manifest["model"][key] for key in ("modelName", "handler")]
    except FileNotFoundError as error:
        raise ModelError(f"{mar} does not exist: name a .mar made by torch-model-archiver.") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{mar} is not a .mar in zip format ({error}): make it with torch-model-archiver.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{mar} has no MAR-INF/MANIFEST.json that names a model and its handler: make it with torch-model-archiver."
        ) from error
    if not all(isinstance(name, str) for name in named):
        raise ModelError(f"{mar} names no handler in its MAR-INF/MANIFEST.json: make it with torch-model-archiver.")
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
