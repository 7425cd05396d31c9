"""A load as options of the generator, and what a generator must be able to do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from models.manifest import ModelDir
from servestorm.errors import StudyEnvironmentError
from servestorm.plan.cells import Variant
from servestorm.plan.scenarios import Autoscaling, Bursty, Steady
from servestorm.plan.turns import LoadTurn, Slicing
from serving.deployment import Deployment, Endpoint

PROBE_MOST_IN_FLIGHT: Final = 1000
"""Requests of a probe in flight at once; an arrival beyond is dropped, and the probe fails."""


class GeneratorError(StudyEnvironmentError):
    """The load generator gave no summary: this cell has no result."""


@dataclass(frozen=True)
class LoadCommand:
    """What one start of the generator offers."""

    file: str
    """steady.py or bursty.py."""
    options: tuple[str, ...]
    length_s: float
    """Seconds, warm-up included, from the start of the round where the load comes in turns."""
    images_per_request: int
    turns: tuple[LoadTurn, ...] = ()
    """When a deployment of a round is loaded; empty: all the time."""


@dataclass(frozen=True)
class LoadOrder:
    """What a generator is asked to offer, and to which deployment."""

    command: LoadCommand
    deployment: Deployment
    model: ModelDir
    engine: str
    variant: Variant
    seed: int
    """Of the arrivals."""
    out: Path
    """Folder in which the load's files lie afterwards."""
    cores: tuple[int, ...]
    """For a generator on this machine."""
    limit_s: float
    """After so many seconds a generator that has not ended is ended."""
    start_file: Path | None = None
    """Of a load that comes in turns: holds its start once every generator of the round is ready."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set where the load is of no use any more: the generator is ended."""

    def request_options(self) -> list[str]:
        """Options for what is sent, and how."""
        return [
            "--engine",
            self.engine,
            "--protocol",
            self.variant.protocol,
            "--model",
            self.model.name,
            "--payload",
            self.variant.payload,
            "--images-per-request",
            str(self.command.images_per_request),
            "--seed",
            str(self.seed),
        ]


class LoadSource(Protocol):
    """Where load comes from: this machine, or pods beside the servers."""

    def offer(self, order: LoadOrder) -> None:
        """Offer the load to the deployment's front, to its end; its files lie in the folder `out` then.

        Raises GeneratorError where it gives no summary in time or was cancelled, StudyError where it refuses our
        options, and DeploymentError where a server dies meanwhile.
        """


def address_options(front: Sequence[Endpoint]) -> list[str]:
    """Options for the addresses that load goes to, and for the headers that these want, alike for all."""
    grpc = ",".join(endpoint.grpc_target for endpoint in front)
    headers = [option for text in front[0].headers.written for option in ("--header", text)] if front else []
    hosts = ",".join(endpoint.rest_url for endpoint in front)
    return ["--host", hosts, *(["--grpc-target", grpc] if grpc else []), *headers]


def steady_load(rate_per_s: float, duration_s: float, warmup_s: float, images: int) -> LoadCommand:
    """Open loop at one rate."""
    return LoadCommand(
        "steady.py", ("--rate", f"{rate_per_s:g}", *_times(duration_s, warmup_s)), duration_s + warmup_s, images
    )


def probe_load(
    rate_per_s: float, duration_s: float, warmup_s: float, images: int, give_up_in_flight: int | None
) -> LoadCommand:
    """Open loop with Poisson arrivals: evenly spaced ones do not queue, and flatter the server.

    It is given up where so many requests are in flight; never for None.
    """
    give_up = ("--give-up-in-flight", str(give_up_in_flight)) if give_up_in_flight else ()
    limits = ("--max-in-flight", str(PROBE_MOST_IN_FLIGHT), *give_up)
    options = ("--rate", f"{rate_per_s:g}", "--arrivals", "poisson", *limits, *_times(duration_s, warmup_s))
    return LoadCommand("steady.py", options, duration_s + warmup_s, images)


def closed_load(in_flight: int, duration_s: float, warmup_s: float, images: int) -> LoadCommand:
    """Always so many requests in flight."""
    options = ("--closed-loop", str(in_flight), *_times(duration_s, warmup_s))
    return LoadCommand("steady.py", options, duration_s + warmup_s, images)


def bursty_load(plan: Bursty | Autoscaling, images: int) -> LoadCommand:
    """Open loop that switches between two rates."""
    return _bursty(plan, plan.duration_s, plan.warmup_s, images)


def _bursty(plan: Bursty | Autoscaling, duration_s: float, warmup_s: float, images: int) -> LoadCommand:
    options = ("--rate", f"{plan.base_rate:g}", "--peak-rate", f"{plan.peak_rate:g}", "--on", f"{plan.on_s:g}")
    times = _times(duration_s, warmup_s)
    return LoadCommand("bursty.py", (*options, "--off", f"{plan.off_s:g}", *times), duration_s + warmup_s, images)


def steady_slices(plan: Steady, slicing: Slicing, images: int) -> LoadCommand:
    """The steady load of a round; it has no turns yet."""
    return steady_load(plan.rate_per_s, slicing.measured_s, 0, images)


def bursty_slices(plan: Bursty, slicing: Slicing, images: int) -> LoadCommand:
    """The bursty load of a round; it has no turns yet."""
    return _bursty(plan, slicing.measured_s, 0, images)


def in_turns(load: LoadCommand, turns: Sequence[LoadTurn], length_s: float) -> LoadCommand:
    """The load in these turns of a round of that length."""
    return replace(load, turns=tuple(turns), length_s=length_s)


def _times(duration_s: float, warmup_s: float) -> tuple[str, ...]:
    return ("--duration", f"{duration_s:g}", "--warmup", f"{warmup_s:g}")
