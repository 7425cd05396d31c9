"""capacity.json and sweep.json: what several loads on one deployment showed."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from servestorm.methods.capacity_estimate import Crossing, crossing
from servestorm.methods.capacity_search import Outcome, Probe, bounds
from servestorm.rundir.shapes.file_shape import FileShape, Many, Share


class ObjectiveFile(FileShape):
    """What a load must keep to pass."""

    p99_ms: Annotated[float, Field(gt=0, le=1e9)]
    max_error_percent: Share
    promise: bool = False
    """Whether p99 must be within its limit with 99 % confidence."""


class ProbeFile(FileShape):
    """One load at one rate; see servestorm.methods.capacity_search.Probe."""

    rate_per_s: Annotated[float, Field(gt=0, le=1e9)]
    verdict: Outcome
    reason: str
    p99_ms: Share | None
    error_percent: Share | None
    confirms: bool
    p99_claim_ms: Share | None = None
    given_up: bool = False

    @property
    def probe(self) -> Probe:
        """For the functions of methods."""
        return Probe(**dict(self))


class CapacityFile(FileShape):
    """capacity.json: a search for the largest rate; see servestorm.methods.capacity_search.Capacity."""

    objective: ObjectiveFile
    rate_per_s: Share | None
    low: Share | None
    high: Share | None
    confirmed: bool
    probes: Annotated[list[ProbeFile], Field(min_length=1)]
    reason: str

    @property
    def crossing(self) -> Crossing | None:
        """The rate at which p99 meets the objective, estimated from all probes; None where they do not tell."""
        return crossing([one.probe for one in self.probes], self.objective.p99_ms)

    @property
    def deciding(self) -> set[int]:
        """Numbers, from 1, of the probes that passed at the largest rate, and of the last one at the smallest that did
        not; all where no rate passed twice.
        """
        numbered = list(enumerate(self.probes, 1))
        if not self.confirmed:
            return {number for number, _ in numbered}
        passed = [number for number, p in numbered if p.rate_per_s == self.rate_per_s and p.verdict == "pass"]
        over = [number for number, probe in numbered if probe.rate_per_s == self.high]
        return {*passed, *over[-1:]}

    @model_validator(mode="after")
    def _it_is_what_its_probes_show(self) -> CapacityFile:
        """A search's result follows from its probes (servestorm.methods.capacity_search.bounds)."""
        verdicts: dict[float, list[Outcome]] = {}
        for probe in self.probes:
            verdicts.setdefault(probe.rate_per_s, []).append(probe.verdict)
        now = bounds(verdicts)
        for name, given, rate in (
            ("rate_per_s", self.rate_per_s, now.promised),
            ("low", self.low, now.low),
            ("high", self.high, now.high),
        ):
            if not _alike(given, rate):
                raise ValueError(f"{name}: it is {_or_none(given)}, and the probes tell {_or_none(rate)}")
        if self.confirmed != (now.promised is not None):
            raise ValueError("confirmed: the probes tell the opposite")
        return self

    @model_validator(mode="after")
    def _what_passed_kept_the_objective(self) -> CapacityFile:
        for place, probe in enumerate(self.probes):
            if probe.verdict != "pass":
                continue
            if probe.given_up:
                raise ValueError(f"probes.{place}: it passed, and it was given up")
            if _is_over(probe.p99_ms, self.objective):
                raise ValueError(f"probes.{place}: it passed, and its p99 is over the objective")
            if self.objective.promise and _is_over(probe.p99_claim_ms, self.objective):
                raise ValueError(f"probes.{place}: it passed, and its p99 cannot be promised")
        return self


def _is_over(p99_ms: float | None, objective: ObjectiveFile) -> bool:
    return p99_ms is None or p99_ms > objective.p99_ms


def _alike(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9)


def _or_none(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:g}"


class PointFile(FileShape):
    """One entry of sweep.json: a closed loop with one client setting."""

    images_per_request: Many
    concurrency: Many
    images_per_s: Share | None
    p50_ms: Share | None
    """Of a request."""
    p99_ms: Share | None
    valid: bool
    reasons: list[str]
