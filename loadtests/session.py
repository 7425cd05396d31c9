"""One load from options to summary: the generator on its thread, the samples on their way to disk."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests import arrivals
from loadtests.exposition import GeneratorMetrics, expose
from loadtests.generator import Generator, Load, Target
from loadtests.options import LoadOptions, build_schedule, target_options
from loadtests.recorder import SampleWriter, rows_of
from loadtests.summary import SUMMARY, RunFacts, Summary, summarise
from loadtests.targets import build_target

_NS = 1_000_000_000
_FLUSH_NS = _NS


@dataclass(frozen=True)
class Prepared:
    """Everything that a load needs, checked before it starts."""

    options: LoadOptions
    target: Target
    load: Load
    settings: dict[str, Any]
    checked: bool


def prepare(options: LoadOptions, run_time_s: float | None = None) -> Prepared:
    """Resolve the target and compute the schedule. Raises LoadTestError before anything is sent."""
    duration_s = options.capped(run_time_s)
    what = target_options(options)
    closed = options.closed_loop > 0
    schedule, process = _schedule(options, duration_s) if not closed else (np.empty(0, np.int64), {})
    load = Load(
        schedule=schedule,
        duration_ns=int((options.warmup + duration_s) * _NS),
        timeout_ns=int(options.timeout * _NS),
        max_in_flight=options.max_in_flight,
        connections=options.connection_limit,
        closed_loop=options.closed_loop,
    )
    settings = {
        "loop": "closed" if closed else "open",
        "engine": what.engine,
        "protocol": options.protocol,
        "model": options.model,
        "payload": options.payload if what.engine != "http" else "body",
        "images_per_request": options.images_per_request,
        "arrivals": process,
        "rate": None if closed else options.rate,
        "duration_s": duration_s,
        "warmup_s": options.warmup,
        "timeout_s": options.timeout,
        "max_in_flight": options.max_in_flight,
        "connections": options.connection_limit,
        "closed_loop": options.closed_loop,
        "seed": options.seed,
        "endpoints": list(what.grpc_targets) if options.grpc and what.grpc_targets else list(options.hosts),
    }
    return Prepared(options, build_target(what), load, settings, what.manifest is not None)


def _schedule(options: LoadOptions, duration_s: float) -> tuple[arrivals.Schedule, dict[str, Any]]:
    """The warm-up at a constant rate, then the process; both in int64 ns from the start."""
    measured, process = build_schedule(options, duration_s)
    if not options.warmup:
        return measured, process
    warmup_ns = int(options.warmup * _NS)
    return np.concatenate([arrivals.constant(options.rate, options.warmup), measured + warmup_ns]), process


class Session:
    """A prepared load running. `watch` is called with each batch of samples; poll() several times a second."""

    def __init__(self, prepared: Prepared, watch: Callable[[NDArray[np.int64]], None] | None = None) -> None:
        self._prepared = prepared
        self._watch = watch
        self._generator = Generator(prepared.target, prepared.load)
        self._temporary = None if prepared.options.out_dir else TemporaryDirectory(prefix="servestorm-")
        folder = prepared.options.out_dir or Path(self._temporary.name if self._temporary else ".")
        self._writer = SampleWriter(folder, prepared.options.images_per_request)
        self._flushed_ns = 0
        self._cpu_at_warm: tuple[float, int] | None = None
        self._stopped_early = False
        self._close_metrics: Callable[[], None] | None = None
        self._metrics = GeneratorMetrics(lambda: self._generator.fired, lambda: self._generator.in_flight)

    def start(self) -> None:
        """Begin on the generator's thread."""
        if self._prepared.options.metrics_port:
            self._close_metrics = expose(self._metrics, self._prepared.options.metrics_port)
        self._started_at = datetime.now(UTC)
        self._generator.start()

    @property
    def _warm_ns(self) -> int:
        return self._generator.start_ns + int(self._prepared.options.warmup * _NS)

    def poll(self) -> bool:
        """Fetch samples, write them once a second; False when the load has ended."""
        ended = self._generator.finished
        self._drain()
        now_ns = time.monotonic_ns()
        if self._generator.start_ns and self._cpu_at_warm is None and now_ns >= self._warm_ns:
            self._cpu_at_warm = (_cpu_s(), now_ns)
        if now_ns - self._flushed_ns >= _FLUSH_NS:
            self._flushed_ns = now_ns
            self._writer.flush(self._warm_ns)
        return not ended

    def stop(self) -> None:
        """End before the schedule does; the summary says so."""
        if not self._generator.finished:
            self._stopped_early = True
            self._generator.stop()

    def finish(self) -> Summary:
        """Write samples.parquet and summary.json. Raises what the generator's thread died of."""
        cpu_s, now_ns = _cpu_s(), time.monotonic_ns()
        self._drain()
        if self._close_metrics:
            self._close_metrics()
        samples = self._writer.close(self._warm_ns)
        if self._generator.crash is not None:
            raise self._generator.crash
        warm_cpu_s, warm_ns = self._cpu_at_warm or (cpu_s, now_ns)
        facts = RunFacts(
            settings={**self._prepared.settings, "started_at": self._started_at.isoformat()},
            measured_from_ns=self._warm_ns,
            measured_until_ns=self._generator.start_ns + self._prepared.load.duration_ns,
            cpu_s=cpu_s - warm_cpu_s,
            wall_s=(now_ns - warm_ns) / 1e9,
            error_details=self._generator.reasons,
            answers="checked" if self._prepared.checked else "unchecked",
            faults=["the load was stopped before its end"] if self._stopped_early else [],
        )
        summary = summarise(samples, facts)
        (samples.parent / SUMMARY).write_text(summary.model_dump_json(indent=2) + "\n")
        if self._temporary:
            self._temporary.cleanup()
        return summary

    def _drain(self) -> None:
        chunks = self._generator.chunks
        while chunks:
            rows = rows_of(chunks.popleft())
            self._writer.add(rows)
            self._metrics.feed(rows)
            if self._watch:
                self._watch(rows)


def _cpu_s() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime
