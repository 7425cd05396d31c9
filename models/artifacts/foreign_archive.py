"""A TorchServe archive in any form that torch-model-archiver writes: a .mar (zip), a .tar.gz, or a folder.

Archives come from anywhere. What they unpack to is bounded, and no name or link in them leads out of them.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

from models.atomic import require_space
from models.confined_paths import require_confined
from models.errors import ModelError

MANIFEST: Final = "MAR-INF/MANIFEST.json"
MOST_UNPACKED_BYTES: Final = 8 << 30
"""Of an archive's files together."""
MOST_FILES: Final = 100_000
MOST_JSON_BYTES: Final = 16 << 20
"""Of a manifest, a list of labels, or a tar's long name, which are read into memory."""
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError)
"""What the libraries raise for damaged, encrypted and oddly packed archives."""
_NAMES_AND_COMMENTS: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""Entries of a tar that describe the next one."""


def require_archive(path: Path) -> None:
    """Raise ModelError where `path` is missing, in none of the three forms, damaged, or over the bounds."""
    if not path.exists():
        raise ModelError(f"{path} does not exist: name an archive made by torch-model-archiver.")
    if path.is_dir():
        require_confined(path)
    elif not (zipfile.is_zipfile(path) or _is_tar(path)):
        raise ModelError(
            f"{path} is not a .mar in zip format, nor a .tar.gz or a folder: make it with torch-model-archiver."
        )
    with _plainly(path):
        _require_bounded(path)


def pack(source: Path, target: Path) -> None:
    """Write the archive `source` as a .mar in zip format: the same bytes where it is one. Raises ModelError."""
    require_archive(source)
    if source.is_file() and zipfile.is_zipfile(source):
        shutil.copyfile(source, target)
        return
    with _plainly(source), zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        root = _root([name for name, _, _ in _entries(source)])
        with closing(_entries(source)) as entries:
            for name, _, stream in entries:
                if not name.startswith(root):
                    continue
                with packed.open(zipfile.ZipInfo(name.removeprefix(root)), "w", force_zip64=True) as entry:
                    shutil.copyfileobj(stream, entry)


def unpack(mar: Path, folder: Path) -> None:
    """Unpack a .mar in zip format. Raises ModelError where it is damaged or too large, OSError for a full disk."""
    require_archive(mar)
    folder.mkdir()
    with _plainly(mar), zipfile.ZipFile(mar) as archive:
        unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
    require_space(folder, unpacked_bytes)
    with _plainly(mar), zipfile.ZipFile(mar) as archive:
        archive.extractall(folder)


def read_small(mar: Path, name: str) -> bytes | None:
    """A small file of a .mar in zip format; None where it holds none of this name. Raises ModelError."""
    with _plainly(mar), zipfile.ZipFile(mar) as archive:
        try:
            entry = archive.getinfo(name)
        except KeyError:
            return None
        if entry.file_size > MOST_JSON_BYTES:
            raise ModelError(f"{name} of {mar} has {entry.file_size:,} bytes, over {MOST_JSON_BYTES:,}: make it anew.")
        return archive.read(entry)


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    """One sentence for an archive that cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist: name an archive made by torch-model-archiver.") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ModelError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): make or copy it again.") from error


class _TarEntry(tarfile.TarInfo):
    """An entry whose long name or comments are read into memory only within a bound."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:  # tarfile's hook for subclasses
        if self.type in _NAMES_AND_COMMENTS and self.size > MOST_JSON_BYTES:
            raise tarfile.ReadError(f"a name or comment of {self.size:,} bytes")
        entry: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # not in the library's stubs
        return entry


def _opened_tar(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "r|*", tarinfo=_TarEntry)


def _is_tar(path: Path) -> bool:
    try:
        with _opened_tar(path):
            return True
    except _BROKEN:
        return False


def _entries(path: Path) -> Generator[tuple[str, int, IO[bytes]], None, None]:
    """(name, bytes, content) of every file. Raises ModelError for a name or a link that leads out."""
    if path.is_dir():
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            with file.open("rb") as stream:
                yield file.relative_to(path).as_posix(), file.stat().st_size, stream
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as stream:
                        yield _inner(info.filename, path), info.file_size, stream
    else:
        yield from _tar_entries(path)


def _tar_entries(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with _opened_tar(path) as archive:
        for entry in archive:
            if entry.isdir():
                continue
            stream = archive.extractfile(entry) if entry.isreg() else None
            if stream is None:
                raise ModelError(f"{path} holds {entry.name!r}, a link or no file at all: pack the files themselves.")
            yield _inner(entry.name.removeprefix("./"), path), entry.size, stream


def _inner(name: str, path: Path) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ModelError(f"{path} holds {name!r}, which leads out of it: make it with torch-model-archiver.")
    return name


def _require_bounded(path: Path) -> None:
    """Look at one entry after the other, so that what comes after the bound is not even decompressed."""
    unpacked_bytes = 0
    for number, (_, size_bytes, _) in enumerate(_entries(path), 1):
        unpacked_bytes += size_bytes
        if number > MOST_FILES:
            raise ModelError(f"{path} holds more than {MOST_FILES:,} files: pack what the handler needs alone.")
        if unpacked_bytes > MOST_UNPACKED_BYTES:
            raise ModelError(
                f"{path} unpacks to more than {MOST_UNPACKED_BYTES / 2**30:g} GiB: pack what the handler needs alone."
            )


def _root(names: list[str]) -> str:
    """What stands before MAR-INF/ in every name: nothing, or the folder that torch-model-archiver packs."""
    found = [name.removesuffix(MANIFEST) for name in names if name == MANIFEST or name.endswith("/" + MANIFEST)]
    return min(found, key=len, default="")
