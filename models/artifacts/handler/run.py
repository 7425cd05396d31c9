"""Ask an archive's handler for its answers, in a process of its own."""

from __future__ import annotations

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

from models.artifacts.handler import worker
from models.errors import ModelError

TIMEOUT_S = 900


class HandlerFailed(ModelError):
    """The archive's handler cannot be run here, or does not answer with probabilities."""


def run_handler(mar: Path, images: Sequence[bytes], batch_sizes: Sequence[int] = (1,)) -> list[dict[str, Any]]:
    """Replies of the handler in `mar` to encoded images, one {"status": int, "value": parsed JSON} each.

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
    replies: list[dict[str, Any]] = result["replies"]
    return replies


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


def probabilities(replies: Sequence[dict[str, Any]], labels: Sequence[str] = ()) -> NDArray[np.float64]:
    """The numbers in a handler's replies, (n, classes).

    A reply may be a list of numbers, that list once more wrapped, {"predictions": [[...]]}, or a dict from labels to
    numbers that names every label. Raises HandlerFailed for anything else.
    """
    rows = []
    for reply in replies:
        if reply["status"] != 200:
            raise HandlerFailed(f"The handler answered an image with status {reply['status']}: {reply['value']}")
        rows.append(_row(reply["value"], labels))
    if len({len(row) for row in rows}) != 1:
        raise HandlerFailed("The handler's replies differ in length.")
    return np.asarray(rows, dtype=np.float64)


def _row(value: Any, labels: Sequence[str]) -> list[float]:
    if isinstance(value, dict) and isinstance(value.get("predictions"), list):
        value = value["predictions"]
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], (list, dict)):
        value = value[0]
    if isinstance(value, dict):
        value = _in_label_order(value, labels)
    if not isinstance(value, list) or not value or not all(isinstance(p, (int, float)) for p in value):
        raise HandlerFailed(f"The handler's reply is not a list of probabilities: {_one_line(str(value))[:80]}")
    return [float(p) for p in value]


def _in_label_order(value: dict[str, Any], labels: Sequence[str]) -> list[Any]:
    missing = [label for label in labels if label not in value]
    if not labels or missing:
        known = f"leaves out {missing[0]!r}" if missing else "names labels, and the model's labels are not known"
        raise HandlerFailed(f"The handler's reply {known}, so its probabilities cannot be put in order.")
    return [value[label] for label in labels]
