"""CIFAR-10 (Krizhevsky 2009): the official Python archive, verified, as PNG."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.atomic import replacing
from models.datasets.dataset import DEFAULT_SIZE, Dataset, DatasetSplit, Progress, no_progress
from models.errors import ModelEnvironmentError, ModelError

ARCHIVE_NAME = "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE_NAME}"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
DEFAULT_DIR = Path("build/data")
TIMEOUT_S = 30
_FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)


def load_cifar10(
    data_dir: Path | None = None,
    seed: int = 0,
    sha256: str = SHA256,
    url: str = URL,
    progress: Progress = no_progress,
) -> Dataset:
    """CIFAR-10 with its own split, from the archive in `data_dir`, which is downloaded where it is not there.

    Raises ModelEnvironmentError where it can be neither found nor downloaded, ModelError where it is not the
    published archive (`sha256`).
    """
    archive = _find(data_dir or DEFAULT_DIR, url, progress)
    if (actual := _sha256(archive)) != sha256:
        raise ModelError(
            f"{archive} is not the published archive (sha256 {actual[:12]}…, not {sha256[:12]}…): remove it and "
            "download it again."
        )
    batches = _read(archive)
    return Dataset(
        name="cifar10",
        train=_split(batches, _TRAIN, progress, "encoding training images"),
        test=_split(batches, _TEST, progress, "encoding held-out images"),
        classes=[name.decode() for name in batches["batches.meta"][b"label_names"]],
        size=DEFAULT_SIZE,
        may_flip=True,
        seed=seed,
    )


def _find(data_dir: Path, url: str, progress: Progress) -> Path:
    """The archive: `data_dir` itself where it is a file, else inside it, else downloaded into it."""
    archive = data_dir if data_dir.is_file() else data_dir / ARCHIVE_NAME
    if not archive.is_file():
        _download(url, archive, progress)
    return archive


def _download(url: str, archive: Path, progress: Progress) -> None:
    progress("downloading CIFAR-10", 0.0)
    with replacing([archive]) as (partial,):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply, partial.open("wb") as file:
                shutil.copyfileobj(reply, file, 1 << 20)
        except urllib.error.URLError as error:
            raise _not_there(url, archive, error.reason) from error
        except (TimeoutError, ConnectionError) as error:
            raise _not_there(url, archive, error) from error
    progress("downloading CIFAR-10", 1.0)


def _not_there(url: str, archive: Path, reason: object) -> ModelEnvironmentError:
    return ModelEnvironmentError(
        f"{archive} does not exist and {url} cannot be downloaded ({reason}): get the file on a machine that is "
        "online and name its folder with --data-dir."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(archive: Path) -> dict[str, dict[bytes, Any]]:
    """Every batch by name. The archive holds pickles; they are read only after its checksum was right."""
    wanted = (*_TRAIN, *_TEST, "batches.meta")
    try:
        with tarfile.open(archive) as tar:
            return {name: pickle.load(_member(tar, name), encoding="bytes") for name in wanted}
    except (tarfile.TarError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{archive} does not hold CIFAR-10 as published: {error}") from error


def _member(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(f"{_FOLDER}/{name}")
    if file is None:
        raise KeyError(f"{_FOLDER}/{name} is no file")
    return file


def _split(batches: dict[str, dict[bytes, Any]], names: tuple[str, ...], progress: Progress, what: str) -> DatasetSplit:
    images: list[bytes] = []
    labels: list[int] = []
    for done, name in enumerate(names):
        progress(what, done / len(names))
        images += [_png(row) for row in batches[name][b"data"]]
        labels += batches[name][b"labels"]
    progress(what, 1.0)
    return DatasetSplit(images, np.asarray(labels, dtype=np.int64))


def _png(row: NDArray[np.uint8]) -> bytes:
    """Encode one row: 1,024 red values, then green, then blue."""
    pixels = row.reshape(3, *DEFAULT_SIZE).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
