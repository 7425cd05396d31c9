"""One load from options to summary: who prepares it, who runs it, who collects its samples.

In one process a `Session` feeds a `Collector` directly. With several workers each runs a `Session` over its share of
the schedule and sends what it recorded to the master, whose `Collector` accounts for every scheduled arrival.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals import processes
from loadtests.arrivals.blocks import NO_ARRIVALS
from loadtests.arrivals.measured_time import ALWAYS, MeasuredTime
from loadtests.arrivals.processes import Arrivals
from loadtests.errors import LoadTestError
from loadtests.generator import jobs
from loadtests.generator.descriptors import require_descriptors
from loadtests.generator.endpoints_file import Follower
from loadtests.generator.generator import Generator
from loadtests.generator.keep_awake import KeptAwake, worth_it
from loadtests.generator.load import ROW, LoadSpec, Target
from loadtests.generator.targets import build_target
from loadtests.generator.varied_requests import prepared_request_of
from loadtests.options import LoadOptions, build_schedule, target_options
from loadtests.samples.recorder import SampleWriter, on_disk, rows_of, whole_file
from loadtests.samples.summary import SUMMARY, GaveUp, LoadFacts, Summary, summarise
from loadtests.samples.validity import GENERATOR
from serving.folder_owner import FolderOwner, FolderTaken
from serving.orphans import scratch_prefix
from serving.socket_errors import TOO_FEW_DESCRIPTORS

Rows = NDArray[np.int64]
_ENDPOINT = ROW.index("endpoint")
_NS = 1_000_000_000
KEPT_AWAKE = "a process of idle priority kept the generator's core awake (--keep-awake)"


@dataclass(frozen=True)
class Prepared:
    """Everything that a load needs, checked before it starts."""

    options: LoadOptions
    target: Target
    load: LoadSpec
    settings: dict[str, Any]
    trace_reading: str = ""
    """How a trace was read, as a sentence; empty where there is none."""

    @property
    def images(self) -> int | NDArray[np.int16]:
        """Images of a request: one number, or (prepared requests,) where a trace says it."""
        varied = self.load.requests is not None
        return np.array(self.target.images, np.int16) if varied else int(self.options.images_per_request)

    @property
    def endpoints(self) -> list[str]:
        """Address of each endpoint, in the order of the samples' `endpoint`; it grows where a file is followed."""
        names: list[str] = self.settings["endpoints"]
        return names

    def follower(self, generator: Generator) -> Follower | None:
        """Applies changes in --endpoints-file to the generator; None without that option."""
        if self.options.file is None or self.target.make is None:
            return None
        return Follower(self.options.file, self.endpoints, self.target.make, generator.relist)

    @property
    def warmup_ns(self) -> int:
        """From the start to the first moment that is measured."""
        return self.load.measured.from_ns

    def share(self, worker: int, workers: int) -> Prepared:
        """What one of several workers does: its arrivals, its part of the closed loop, of the cap on requests."""
        load = self.load
        closed = load.closed_loop // workers + (worker < load.closed_loop % workers) if load.closed_loop else 0
        dealt = replace(
            load,
            schedule=load.schedule.deal(worker, workers),
            requests=None if load.requests is None else load.requests[worker::workers].copy(),
            closed_loop=closed,
            max_in_flight=-(-load.max_in_flight // workers),
            give_up_in_flight=-(-load.give_up_in_flight // workers),
        )
        return replace(self, load=dealt)


def prepare(options: LoadOptions, run_time_s: float | None = None) -> Prepared:
    """Resolve the target and check the schedule. Raises LoadTestError before anything is sent."""
    duration_s = options.capped(run_time_s)
    closed = options.closed_loop > 0
    arrivals = Arrivals(NO_ARRIVALS) if closed else _arrivals(options, duration_s)
    images = arrivals.images
    what = target_options(options, () if images is None else np.unique(images).tolist())
    target = build_target(what)
    load = LoadSpec(
        schedule=arrivals.schedule,
        requests=None if images is None else prepared_request_of(images, target.images),
        duration_ns=int(options.turns.active.end_ns[-1]) if options.turns else int((options.warmup + duration_s) * _NS),
        timeout_ns=int(options.timeout * _NS),
        max_in_flight=options.max_in_flight,
        connections=options.connection_limit,
        closed_loop=options.closed_loop,
        measured=options.turns.measured if options.turns else MeasuredTime.since(int(options.warmup * _NS)),
        active=options.turns.active if options.turns else ALWAYS,
        give_up_in_flight=options.give_up_in_flight,
    )
    settings = {
        "loop": "closed" if closed else "open",
        "engine": what.engine,
        "protocol": options.protocol,
        "model": options.model,
        "payload": options.payload if what.engine != "http" else "body",
        "images_per_request": options.images_per_request if images is None else None,
        "arrivals": arrivals.record,
        "rate": None if closed else options.rate,
        "duration_s": duration_s,
        "warmup_s": load.measured.from_ns / _NS,
        "slices": len(options.turns.measured.begin_ns) if options.turns else None,
        "timeout_s": options.timeout,
        "max_in_flight": options.max_in_flight,
        "connections": options.connection_limit,
        "closed_loop": options.closed_loop,
        "seed": options.seed,
        "endpoints": list(what.grpc_targets) if options.grpc and what.grpc_targets else list(options.hosts),
    }
    return Prepared(options, target, load, settings, arrivals.reading)


def _arrivals(options: LoadOptions, duration_s: float) -> Arrivals:
    """The warm-up at a constant rate, then the process, or both in turns."""
    measured = build_schedule(options, duration_s)
    if options.turns:
        return replace(measured, schedule=options.turns.place(measured.schedule, options.rate))
    if not options.warmup:
        return measured
    warmup = processes.constant(options.rate, options.warmup)
    schedule = measured.schedule.after(warmup, int(options.warmup * _NS))
    if measured.images is None:
        return replace(measured, schedule=schedule)
    # the warm-up has requests of the sizes that follow
    images = np.concatenate([np.resize(measured.images, warmup.count()), measured.images])
    return replace(measured, schedule=schedule, images=images)


@dataclass(frozen=True)
class SessionEnd:
    """What a session knows at its end besides its samples."""

    error_details: Mapping[str, int]
    cpu_share: float | None
    """CPU seconds a second of the process while the load was on, warm-up left out."""
    stopped_after_ns: int | None = None
    """From the load's start to the moment at which it was stopped before its end; None where it was not."""
    gave_up_after_ns: int | None = None
    """From the load's start to the moment at which it was given up; None where it was not."""
    kept_awake: bool = False
    """True where a process of idle priority kept the core awake."""


class Session:
    """A load running in this process; poll() several times a second hands samples to `sink`.

    Raises LoadEnvironmentError where this process may not open as many files as the load needs.
    """

    def __init__(self, prepared: Prepared, sink: Callable[[Rows], None], start_at_ns: int = 0) -> None:
        self._load = prepared.load
        self._hidden = prepared.target.hidden
        self._sink = sink
        followed = prepared.options.file is not None
        require_descriptors(prepared.load, len(prepared.target.addresses), more_to_come=followed)
        punctual = bool(prepared.options.start_file)
        self.generator = Generator(prepared.target, prepared.load, start_at_ns, punctual=punctual)
        self._follower = prepared.follower(self.generator)
        self._cpu_when_measured: tuple[float, int] | None = None
        self._stopped_ns: int | None = None
        self._wanted_awake = prepared.options.keep_awake
        self._kept_awake: KeptAwake | None = None

    @property
    def measured(self) -> MeasuredTime:
        """The measured time on this machine's monotonic clock, once the load has begun."""
        return self._load.measured.started(self.generator.start_ns)

    @property
    def measured_from_ns(self) -> int:
        """The first measured moment on this machine's monotonic clock; 0 while the load has not begun."""
        return self.measured.from_ns if self.generator.start_ns else 0

    def start(self) -> None:
        """Begin on the generator's thread."""
        if self._wanted_awake == "on" or (self._wanted_awake == "auto" and worth_it()):
            self._kept_awake = KeptAwake()
        self.generator.start()

    def poll(self) -> bool:
        """Hand over samples; False when the load has ended. Raises what the generator's thread died of."""
        ended = self.generator.finished
        if self._follower and not ended:
            self._follower.look()
        self.generator.plan_ahead()
        chunks = self.generator.chunks
        while chunks:
            self._sink(rows_of(chunks.popleft()))
        from_ns, now_ns = self.measured_from_ns, time.monotonic_ns()
        if from_ns and self._cpu_when_measured is None and now_ns >= from_ns:
            self._cpu_when_measured = (_cpu_s(), now_ns)
        if ended and self.generator.crash is not None:
            raise self.generator.crash
        return not ended

    def stop(self) -> None:
        """End before the schedule does; the summary records it."""
        if not self.generator.finished and self._stopped_ns is None:
            self._stopped_ns = time.monotonic_ns()
            self.generator.stop()

    def ending(self) -> SessionEnd:
        """To be asked once poll() was False, or when no more is waited for."""
        if self._kept_awake:
            self._kept_awake.close()
        generator = self.generator
        details: Counter[str] = Counter()
        for reason, count in generator.reasons.items():
            details[self._hidden.out_of(reason)] += count
        return SessionEnd(
            details,
            self._cpu_share(),
            self._stopped_after_ns(),
            generator.gave_up_ns - generator.start_ns if generator.gave_up_ns else None,
            self._kept_awake is not None,
        )

    def _stopped_after_ns(self) -> int | None:
        if self._stopped_ns is None:
            return None
        begun_ns = self.generator.start_ns
        return max(0, self._stopped_ns - begun_ns) if begun_ns else 0

    def _cpu_share(self) -> float | None:
        """All that the process used since the first measured moment, over the time that the load was on since then."""
        if self._cpu_when_measured is None:
            return None
        cpu_s, at_ns = self._cpu_when_measured
        active_ns = self._load.active.started(self.generator.start_ns).within_ns(at_ns, time.monotonic_ns())
        return (_cpu_s() - cpu_s) / max(active_ns / 1e9, 1e-9)


class Collector:
    """Samples of all workers on their way to disk and into a summary."""

    def __init__(self, prepared: Prepared, start_ns: Callable[[], int], workers: int = 1) -> None:
        self._prepared = prepared
        self._start_ns = start_ns
        """Of the load, on this machine's monotonic clock; 0 while it has not begun."""
        self._workers = workers
        with on_disk(Path("the temporary folder (TMPDIR)")):
            self._temporary = None if prepared.options.out_dir else _temporary()
        folder = prepared.options.out_dir or Path(self._temporary.name if self._temporary else ".")
        self._owner = _owner(folder)  # two loads would mix their samples
        self._writer = SampleWriter(folder, prepared.images)
        self._flushed_ns = 0

    @property
    def _measured(self) -> MeasuredTime:
        return self._prepared.load.measured.started(self._start_ns())

    def add(self, rows: Rows) -> None:
        """Take samples, (n, len(ROW)) int64; they lie on disk within a second."""
        self._writer.add(rows)
        now_ns = time.monotonic_ns()
        if now_ns - self._flushed_ns >= _NS:
            self._flushed_ns = now_ns
            self._writer.flush(self._measured)

    def add_lost(self, moments_ns: processes.Schedule) -> Rows:
        """Record arrivals (ns after the start) that a worker took with it, so that none is unaccounted for.

        Returns them as samples.
        """
        rows = np.full((len(moments_ns), len(ROW)), -1, np.int64)
        rows[:, ROW.index("scheduled_ns")] = moments_ns + self._start_ns()
        rows[:, ROW.index("outcome")] = jobs.LOST_WORKER
        for name in ("sent_bytes", "received_bytes", "endpoint", "image"):
            rows[:, ROW.index(name)] = 0
        load = self._prepared.load
        if load.requests is not None:
            rows[:, ROW.index("image")] = load.requests[np.searchsorted(load.schedule.whole(), moments_ns)]
        self.add(rows)
        return rows

    def finish(self, endings: list[SessionEnd], faults: list[str]) -> Summary:
        """Write samples.parquet and summary.json."""
        details: Counter[str] = Counter()
        for ending in endings:
            details.update(ending.error_details)
        given_up = [ending.gave_up_after_ns for ending in endings if ending.gave_up_after_ns is not None]
        stopped = [ending.stopped_after_ns for ending in endings]
        if any(after_ns is not None for after_ns in stopped) and not given_up:
            faults = [*faults, "the load was stopped before its end"]
        if unsent := details[TOO_FEW_DESCRIPTORS]:
            faults = [*faults, f"{GENERATOR} had no file descriptor left for {unsent} requests: raise ulimit -n"]
        shares = [ending.cpu_share for ending in endings if ending.cpu_share is not None]
        samples = self._writer.close(self._measured)
        facts = LoadFacts(
            settings={
                **self._prepared.settings,
                "workers": self._workers,
                "started_at": _moment(self._start_ns()).isoformat(),
            },
            measured=self._measured,
            ended_ns=self._start_ns() + self._ended_after_ns(given_up, stopped),
            gave_up=GaveUp(min(given_up) / 1e9, self._prepared.options.give_up_in_flight) if given_up else None,
            cpu_share=max(shares, default=None),
            error_details=details,
            answers="checked" if self._prepared.target.checked else "unchecked",
            faults=faults,
            notes=[KEPT_AWAKE] if any(ending.kept_awake for ending in endings) else [],
        )
        summary = summarise(samples, facts)
        with whole_file(samples.parent / SUMMARY) as file:
            file.write_text(summary.model_dump_json(indent=2) + "\n")
        self.release()
        return summary

    def release(self) -> None:
        """Let another load write into the folder; also where this one does not come to its end."""
        self._owner.release()
        if self._temporary:
            self._temporary.cleanup()

    def _ended_after_ns(self, given_up: list[int], stopped: list[int | None]) -> int:
        """From the load's start until nothing more was due: in all workers, where some were stopped before the end."""
        planned_ns = self._prepared.load.duration_ns
        if given_up:  # the others end with it
            return min([planned_ns, *given_up])
        return min(planned_ns, max((planned_ns if after is None else after for after in stopped), default=planned_ns))


def _owner(folder: Path) -> FolderOwner:
    """Raises LoadTestError where another load writes there, LoadEnvironmentError where it cannot be locked."""
    try:
        with on_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return FolderOwner(folder)
    except FolderTaken as error:
        raise LoadTestError(f"--out {error}") from error


def _temporary() -> TemporaryDirectory[str]:
    """A folder that is found by its name where this process is killed."""
    prefix = scratch_prefix()
    return TemporaryDirectory(prefix=prefix.name, dir=prefix.parent)


def _moment(monotonic_ns: int) -> datetime:
    """A moment of this machine's monotonic clock on the wall clock; now where it is 0."""
    ago_ns = time.monotonic_ns() - monotonic_ns if monotonic_ns else 0
    return datetime.now(UTC) - timedelta(microseconds=ago_ns // 1000)


def renumbered(rows: Rows, theirs: list[str], ours: list[str]) -> Rows:
    """Rows of a worker that met endpoints in an order of its own, as `ours` numbers them; `ours` grows by new ones."""
    ours.extend(name for name in theirs if name not in ours)
    if theirs == ours[: len(theirs)]:
        return rows
    rows = rows.copy()
    rows[:, _ENDPOINT] = np.array([ours.index(name) for name in theirs])[rows[:, _ENDPOINT]]
    return rows


def _cpu_s() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime
