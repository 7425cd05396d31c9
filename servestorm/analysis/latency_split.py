"""Where the time of a mean request went: from its scheduled moment to its answer, part by part.

The generator's samples tell the lag and the time on the way; the server's own metrics tell what it did meanwhile. Both
are means over the same load, so the parts add up to the mean latency. What nobody measured has a part of its own.
Since a server's means are of all its requests, these hold the slices that do not count for the rows, and of a load in
turns its lead-ins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from servestorm.analysis.server_times import ServerTimes, server_times
from servestorm.methods.percentiles import over_runs
from servestorm.rundir.record import CellRecord
from servestorm.rundir.samples import MeanLatency, read_mean_latency

LAG = "generator lag"
CLIENT = "client and network"
QUEUE = "server queue"
PREPROCESS = "pre-processing"
INFERENCE = "inference"
POSTPROCESS = "post-processing"
REST = "rest of the server"
UNKNOWN = "client, network and rest of the server"
UNREAD = ServerTimes(notes=("The server's own metrics were not read.",))
_ROUNDING_MS = 0.02
"""A part that is negative by less is zero for a reader: the server and the generator read different clocks."""


@dataclass(frozen=True)
class Part:
    """One part of the mean latency; None where the server does not expose it, so that it is in another part."""

    part: str
    ms: float | None


@dataclass(frozen=True)
class Parts:
    """The parts of the mean latency of a request, means over runs."""

    mean_ms: float | None
    """The mean latency itself, over all runs that have one: what the parts add up to, those below zero too."""
    parts: list[Part]
    """A part that some run of the engine does not know is None, and its time is in the rest for every run."""
    notes: list[str]
    """What the server does not tell, and how its figures were read."""


@dataclass(frozen=True)
class Split:
    """Means of one right answer, in milliseconds, in the order of time. Known parts add up to `mean_ms`."""

    mean_ms: float
    requests: int
    parts: tuple[Part, ...]
    notes: tuple[str, ...]


def split(samples: Path, times: ServerTimes, since_ns: int | None = None) -> Split | None:
    """Split the mean latency of samples.parquet; None where no right answer came. Raises StudyError for a broken file.

    `since_ns` as in servestorm.rundir.samples.read_mean_latency.
    Client and network is the time from the send to the last byte less the server's own total.
    """
    means = read_mean_latency(samples, since_ns)
    return None if means is None else split_means(means, times)


def split_means(means: MeanLatency, times: ServerTimes) -> Split:
    """As `split`, from means."""
    inside = [
        Part(QUEUE, times.queue_ms),
        Part(PREPROCESS, times.preprocess_ms),
        Part(INFERENCE, times.inference_ms),
        Part(POSTPROCESS, times.postprocess_ms),
    ]
    known_ms = sum(part.ms for part in inside if part.ms is not None)
    if times.total_ms is None:
        outside = [Part(UNKNOWN, means.service_ms - known_ms)]
        rest: list[Part] = []
    else:
        outside = [Part(CLIENT, means.service_ms - times.total_ms)]
        rest = [Part(REST, times.total_ms - known_ms)]
    parts = (Part(LAG, means.lag_ms), *outside, *inside, *rest)
    return Split(means.lag_ms + means.service_ms, means.requests, parts, (*times.notes, *_negative(parts)))


def _negative(parts: tuple[Part, ...]) -> list[str]:
    """A part below zero is shown as it is: the two sides did not measure the same requests."""
    below = [part.part for part in parts if part.ms is not None and part.ms < -_ROUNDING_MS]
    if not below:
        return []
    return [
        f"{', '.join(below).capitalize()} came out below zero: the server's means are over other requests than the "
        "generator's, so read this split with care."
    ]


def mean_splits(cells: Mapping[str, Sequence[CellRecord]]) -> dict[str, Parts]:
    """The split of each engine, means over its runs; empty where no run has a right answer.

    `ms` is None where no server told. Raises StudyError for a broken file of samples or metrics.
    """
    loads = {
        engine: [_Load(cell.samples_path, _times(cell), _since_ns(cell)) for cell in own if cell.samples_path]
        for engine, own in cells.items()
    }
    splits = {engine: _alike(own) for engine, own in loads.items()}
    return {engine: _means(own) for engine, own in splits.items()} if any(splits.values()) else {}


class _Load(NamedTuple):
    samples: Path
    times: ServerTimes
    since_ns: int | None
    """Of a load in turns: the first measured moment."""


def _since_ns(cell: CellRecord) -> int | None:
    """A server's means hold the lead-ins as well, so those of the generator do, where a load took turns."""
    return int(cell.slices.turns.measured_ns[0]) if cell.slices else None


def _times(cell: CellRecord) -> ServerTimes:
    since_ms = cell.summary.measured_from_unix_ms if cell.summary else None
    metrics = cell.metrics_path
    return server_times(cell.cell.engine, metrics, since_unix_ms=since_ms) if metrics else UNREAD


_TIMES: Final = ("total_ms", "queue_ms", "preprocess_ms", "inference_ms", "postprocess_ms")


def _alike(loads: Sequence[_Load]) -> list[Split]:
    """Every load split by what all of them know: means of parts of different loads would not add up."""
    unknown: dict[str, Any] = {
        name: None for name in _TIMES if any(getattr(load.times, name) is None for load in loads)
    }
    splits = (split(load.samples, replace(load.times, **unknown), load.since_ns) for load in loads)
    return [one for one in splits if one is not None]


def _means(splits: Sequence[Split]) -> Parts:
    names = dict.fromkeys(part.part for one in splits for part in one.parts)
    by_name = {name: [part.ms for one in splits for part in one.parts if part.part == name] for name in names}
    return Parts(
        mean_ms=over_runs([one.mean_ms for one in splits]).mean,
        parts=[Part(name, over_runs(ms).mean) for name, ms in by_name.items()],
        notes=list(dict.fromkeys(note for one in splits for note in one.notes)),
    )
