"""Loads of the campaign, as a person starts them: `servestorm load`, what it left, and what is wrong with that."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from commands import RunningCommand
from figures import Figure
from numpy.typing import NDArray

from loadtests.arrivals.processes import constant
from models.manifest import ModelDir

VALID, INVALID, REFUSED = 0, 4, 3
"""The documented exit codes that a load of the campaign may have; 2 and 70 would be our own faults."""
LATE_NS = 250_000_000
"""Time limits are looked at every 50 ms, and this machine may be busy."""
START_S = 25.0
"""What the start and the end of Locust may take on a busy machine, beside the load itself."""
HANGS_S = 120.0
TIMES = ("scheduled_ns", "sent_ns", "first_byte_ns", "done_ns")


@dataclass(frozen=True)
class Offer:
    """An even load without warm-up."""

    rate: float
    duration_s: float
    timeout_s: float

    @property
    def arrivals(self) -> int:
        return constant(self.rate, self.duration_s).count()

    def options(self, out: Path) -> list[str]:
        """Of the command line."""
        return [
            *("--headless", "--only-summary", "--warmup", "0", "--keep-awake", "off"),
            *("--rate", str(self.rate), "--duration", str(self.duration_s), "--timeout", str(self.timeout_s)),
            *("--out", str(out)),
        ]


def target(model: Path, port: int | None = None) -> list[str]:
    """Options of the command line: an engine with that model, on that port where one is given."""
    host = [] if port is None else ["--host", f"http://127.0.0.1:{port}"]
    name = ModelDir(model).manifest.name
    return [*("--engine", "tfserving", "--manifest", str(model.resolve()), "--model", name), *host]


@dataclass(frozen=True)
class EndedLoad:
    """What a load left."""

    code: int | None
    """None: it hung, and was killed."""
    text: str
    """Its output."""
    wall_s: float
    summary: dict[str, Any] | None
    samples: dict[str, NDArray[Any]] | None
    """Columns; times that never came are -1."""


class RunningLoad(RunningCommand):
    """`servestorm load steady ...`."""

    def __init__(
        self,
        options: Sequence[str],
        folder: Path,
        name: str = "load",
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        """See RunningCommand."""
        self._started_s = time.monotonic()
        super().__init__(["load", "steady", *options], folder, name, env, **more)

    def end(self, out: Path) -> EndedLoad:
        """Wait for its end; one that hangs is killed."""
        code = self.code_within(HANGS_S)
        wall_s = time.monotonic() - self._started_s
        summary, samples = out / "summary.json", out / "samples.parquet"
        return EndedLoad(
            code,
            self.output(),
            wall_s,
            json.loads(summary.read_text()) if summary.is_file() else None,
            columns(samples) if samples.is_file() else None,
        )


def columns(samples: Path) -> dict[str, NDArray[Any]]:
    """The columns of samples.parquet that the campaign looks at."""
    table = pq.read_table(samples)
    read: dict[str, NDArray[Any]] = {name: table[name].fill_null(-1).to_numpy() for name in (*TIMES, "image")}
    read["outcome"] = np.array(table["outcome"].cast("string").to_pylist())
    return read


@dataclass
class LoadTally:
    """What is wrong with the loads of a part: counts, and a line each of what they are."""

    start_s: float = START_S
    """What a command may take beside its load."""
    loads: int = 0
    arrivals: int = 0
    unaccounted: int = 0
    twice: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    bad_codes: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    bad_times: int = 0
    contradictions: list[str] = field(default_factory=list)
    """Where the summary says something else than the samples."""

    def take(self, name: str, load: EndedLoad, offer: Offer, codes: Sequence[int] = (VALID, INVALID)) -> None:
        """Judge one load, which may end with `codes`."""
        self.loads += 1
        self.arrivals += offer.arrivals
        self.codes[str(load.code)] += 1
        last = last_words(load.text)
        if load.code not in codes:
            self.bad_codes.append(f"{name}: code {load.code}: {last}")
        if "Traceback" in load.text or "Exception ignored" in load.text:
            self.tracebacks.append(f"{name}: {last}")
        if load.wall_s > offer.duration_s + offer.timeout_s + self.start_s:
            self.too_long.append(f"{name}: the command took {load.wall_s:.1f} s")
        if load.samples is None or load.summary is None:
            self.unaccounted += offer.arrivals
            self.contradictions.append(f"{name}: no summary or no samples: {last}")
        else:
            self._take_samples(name, load.samples, load.summary, offer)

    def _take_samples(self, name: str, samples: dict[str, NDArray[Any]], summary: Any, offer: Offer) -> None:
        moments = len(np.unique(samples["scheduled_ns"]))
        self.unaccounted += abs(offer.arrivals - moments)
        self.twice += len(samples["scheduled_ns"]) - moments
        counted = summary["ok"] + sum(summary["errors"].values())
        if not counted == summary["scheduled"] == len(samples["outcome"]):
            self.contradictions.append(
                f"{name}: {len(samples['outcome'])} samples, {counted} outcomes, {summary['scheduled']} scheduled"
            )
        if not moments:
            return
        limit_ns = int(offer.timeout_s * 1e9) + LATE_NS
        self.bad_times += bad_times(samples, limit_ns)
        whole_s = (samples["done_ns"].max() - samples["scheduled_ns"].min()) / 1e9
        if whole_s > offer.duration_s + limit_ns / 1e9:
            self.too_long.append(f"{name}: {whole_s:.2f} s from the first arrival to the last answer")

    def figures(self) -> list[Figure]:
        """Of every part with loads."""
        faults = (*self.bad_codes, *self.tracebacks, *self.too_long, *self.contradictions)
        return [
            Figure("loads", self.loads),
            Figure("arrivals", self.arrivals),
            Figure("arrivals unaccounted", self.unaccounted, 0),
            Figure("arrivals counted twice", self.twice, 0),
            Figure("latencies that are negative or over the time-out", self.bad_times, 0),
            Figure("loads longer than their schedule and time-out", len(self.too_long), 0),
            Figure("loads whose summary contradicts their samples", len(self.contradictions), 0),
            Figure("loads by exit code", ", ".join(f"{n} x {code}" for code, n in sorted(self.codes.items()))),
            Figure("exit codes that were not to be expected", len(self.bad_codes), 0),
            Figure("tracebacks", len(self.tracebacks), 0),
            *(Figure(f"detail: {text}", "") for text in faults),
        ]


def last_words(text: str) -> str:
    """The last two lines of a log that say what was wrong, in one; Locust's tables say it of nobody."""
    lines = [line.replace("|", "/") for line in text.strip().splitlines()]
    spoken = [line for line in lines if "servestorm" in line or "Error" in line]
    return " / ".join((spoken or lines)[-2:])[:300]


def bad_times(samples: dict[str, NDArray[Any]], limit_ns: int) -> int:
    """Samples of which a time is before the one that it follows, or the end more than `limit_ns` after the send."""
    scheduled, sent, first, done = (samples[name] for name in TIMES)
    begun = np.where(sent >= 0, sent, scheduled)
    early = ((sent >= 0) & (sent < scheduled)) | ((first >= 0) & (first < begun))
    ended = done >= 0
    return int((early | (ended & ((done < np.maximum(begun, first)) | (done - begun > limit_ns)))).sum())
