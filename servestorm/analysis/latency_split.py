"""Where the time of a mean request went: from its scheduled moment to its answer, part by part.

The generator's samples tell the lag and the time on the way; the server's own metrics tell what it did meanwhile. Both
are means over the same load, so the parts add up to the mean latency. What nobody measured has a part of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servestorm.analysis.server_times import ServerTimes
from servestorm.rundir.samples import MeanLatency, read_mean_latency

LAG = "generator lag"
CLIENT = "client and network"
QUEUE = "server queue"
PREPROCESS = "pre-processing"
INFERENCE = "inference"
POSTPROCESS = "post-processing"
REST = "rest of the server"
UNKNOWN = "client, network and rest of the server"
_ROUNDING_MS = 0.02
"""A part that is negative by less is zero for a reader: the server and the generator read different clocks."""


@dataclass(frozen=True)
class Part:
    """One part of the mean latency; None where the server does not expose it, so that it is in another part."""

    part: str
    ms: float | None


@dataclass(frozen=True)
class Split:
    """Means of one right answer, in milliseconds, in the order of time. Known parts add up to `mean_ms`."""

    mean_ms: float
    requests: int
    parts: tuple[Part, ...]
    notes: tuple[str, ...]


def split(samples: Path, times: ServerTimes) -> Split | None:
    """Split the mean latency of samples.parquet; None where no right answer came. Raises StudyError for a broken file.

    Client and network is the time from the send to the last byte less the server's own total.
    """
    means = read_mean_latency(samples)
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
