"""Slices of a load: which of them the figures of a run are of, by what the machine and the load generator did.

A load that takes turns with others on the same machine has its slices written down; any other load is cut into seconds,
or into whole cycles where it has bursts. No rule here knows an engine or compares a latency with anything but the same
latency counted from the send, so none can favour a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from servestorm.methods.disturbance import (
    Cause,
    Disturbance,
    DisturbanceLimits,
    MachineShares,
    disturbance,
    reason_of,
    worst,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Times = NDArray[np.int64]

SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class SliceCount:
    """How many slices of a run its figures are of."""

    planned: int
    length_s: float
    """Measured seconds of one; the last may be shorter."""
    disturbed: int
    """Left out of every figure, in all runs of the round: other programs or machines took too much. All count where
    more than half are DISTURBED, for then the run is."""
    undrained: int
    """Left out of every figure, in all runs of the round: at its begin a request of the slice before was unanswered.
    All count where that holds for more than half of the slices that are not DISTURBED."""
    late: dict[str, int]
    """Left out of that figure alone, because the load generator sent late; of figures that leave some out."""

    @property
    def too_many_undrained(self) -> bool:
        """Whether undrained slices count, because they are more than half of those that are not DISTURBED."""
        counted = self.planned if 2 * self.disturbed > self.planned else self.planned - self.disturbed
        return 2 * self.undrained > counted

    @property
    def left_out(self) -> int:
        """Slices that are left out of every figure."""
        disturbed = 0 if 2 * self.disturbed > self.planned else self.disturbed
        return disturbed + (0 if self.too_many_undrained else self.undrained)


@dataclass(frozen=True)
class LoadTurns:
    """The slices of one load that took turns with others: int64 ns of the monotonic clock, shape (slices,)."""

    begin_ns: Times
    """Of the lead-in, whose requests are in no figure."""
    measured_ns: Times
    """Of the measured part."""
    end_ns: Times
    cpu_s: Floats
    """CPU time of the load's servers over the slice; NaN where it is unknown."""
    idle_cpu_s: Floats
    """CPU time of the load's servers while the others had the slice of that number; NaN where it is unknown."""
    idle_s: Floats
    """Seconds of that; NaN where they are unknown."""

    @property
    def length_ns(self) -> int:
        """Of the measured part of every slice."""
        return int((self.end_ns - self.measured_ns).max(initial=1))

    @property
    def idle_share(self) -> float | None:
        """Share of one core that the servers used while others were loaded; None where it is unknown."""
        known = ~np.isnan(self.idle_cpu_s) & ~np.isnan(self.idle_s)
        idle_s = float(self.idle_s[known].sum())
        return float(self.idle_cpu_s[known].sum()) / idle_s if idle_s else None


@dataclass(frozen=True)
class SliceUse:
    """Which slices of a load count; every array has the shape (slices,)."""

    slice_ns: int
    """Measured length of a slice: on the time of the measured slices put end to end, slice k begins at k times it."""
    measured_s: Floats
    """Of each slice; the last may be shorter."""
    disturbed: Flags
    undrained: Flags
    late: Mapping[str, Flags] = field(default_factory=dict)
    """By figure that leaves slices out for the generator's lag."""
    invalid: Mapping[str, str] = field(default_factory=dict)
    """By figure that is INVALID: why."""
    watched: frozenset[Cause] = frozenset()
    """What `disturbed` was judged by."""
    disturbance: Disturbance | None = None
    """Why the whole run is DISTURBED: more than half of its slices are."""

    @property
    def too_many_undrained(self) -> bool:
        """Whether so many slices are undrained that they all count: the rate is more than a server can take."""
        return self.count().too_many_undrained

    @property
    def _disturbed(self) -> Flags:
        return np.zeros_like(self.disturbed) if self.disturbance else self.disturbed

    def counted(self, figure: str | None = None) -> Flags:
        """Slices that count for a figure, or for all that lag does not touch."""
        counted = ~self._disturbed
        if not self.too_many_undrained:
            counted &= ~self.undrained
        if figure is not None and figure in self.late:
            counted &= ~self.late[figure]
        return counted

    def count(self) -> SliceCount:
        """The counts, for the results."""
        return SliceCount(
            planned=int(self.measured_s.size),
            length_s=self.slice_ns / SECOND_NS,
            disturbed=int(self.disturbed.sum()),
            undrained=int((self.undrained & ~self._disturbed).sum()),
            late={name: int(left_out.sum()) for name, left_out in self.late.items()},
        )


def whole(slice_ns: int, last_ns: int, duration_s: float) -> SliceUse:
    """All slices of a load whose last request is due `last_ns` after its first count."""
    slices = max(last_ns // slice_ns + 1, 1)
    measured_s = np.full(slices, slice_ns / SECOND_NS)
    rest_s = duration_s - float(measured_s[:-1].sum())
    if 0 < rest_s < measured_s[-1]:
        measured_s[-1] = rest_s
    return _all_count(slice_ns, measured_s)


def of_turns(turns: LoadTurns) -> SliceUse:
    """All slices of a load that took turns count."""
    return _all_count(turns.length_ns, (turns.end_ns - turns.measured_ns) / SECOND_NS)


def _all_count(slice_ns: int, measured_s: Floats) -> SliceUse:
    none = np.zeros(measured_s.size, np.bool_)
    return SliceUse(slice_ns, measured_s, disturbed=none, undrained=none)


@dataclass(frozen=True)
class MachineTimes:
    """What the machine did second by second, shape (seconds,); shares are 0..1 of the cores, NaN where unknown."""

    begin_ns: Times
    end_ns: Times
    other_share: Floats
    steal_share: Floats

    @property
    def watched(self) -> frozenset[Cause]:
        """What of it is known."""
        shares: dict[Cause, Floats] = {"other_load": self.other_share, "steal": self.steal_share}
        return frozenset(cause for cause, of in shares.items() if not np.isnan(of).all())

    def covers(self, begin_ns: Times, end_ns: Times) -> bool:
        """Whether the machine was watched from the first of these slices to the last; not of a load that was stopped,
        nor of samples with another clock.
        """
        return bool(self.begin_ns[0] <= begin_ns[0] and end_ns[-1] <= self.end_ns[-1])


def disturbances(
    begin_ns: Times, end_ns: Times, machine: MachineTimes, limits: DisturbanceLimits
) -> list[Disturbance | None]:
    """Why each slice from `begin_ns` to `end_ns` is DISTURBED, by the mean of the seconds that overlap it."""
    other = _means(begin_ns, end_ns, machine, machine.other_share)
    steal = _means(begin_ns, end_ns, machine, machine.steal_share)
    shares = (MachineShares(_percent(a), _percent(b)) for a, b in zip(other, steal, strict=True))
    return [disturbance(one, limits) for one in shares]


def _percent(share: float) -> float | None:
    return None if np.isnan(share) else 100 * float(share)


def _means(begin_ns: Times, end_ns: Times, machine: MachineTimes, shares: Floats) -> Floats:
    """Mean share of each slice over the time of it that is known; NaN where none is."""
    known = ~np.isnan(shares)
    if not known.any():
        return np.full(begin_ns.size, np.nan)
    start_ns = int(machine.begin_ns[0])
    edges = np.stack([machine.begin_ns[known], machine.end_ns[known]], axis=1).ravel() - start_ns
    lengths = (machine.end_ns - machine.begin_ns)[known].astype(np.float64)

    def between(amounts: Floats) -> Floats:
        # an integral that grows within the seconds and stands still between them
        grown = np.cumsum(amounts)
        integral = np.stack([grown - amounts, grown], axis=1).ravel()
        return np.interp(end_ns - start_ns, edges, integral) - np.interp(begin_ns - start_ns, edges, integral)

    time_ns, lost_ns = between(lengths), between(lengths * shares[known])
    means: Floats = np.divide(lost_ns, time_ns, out=np.full(begin_ns.size, np.nan), where=time_ns > 0)
    return means


def of_round(runs: Sequence[Sequence[Disturbance | None]]) -> list[Disturbance | None]:
    """Why each slice of a round is DISTURBED: in any of its runs, for neighbours are left out together."""
    return [worst(one for one in found if one) for found in zip(*runs, strict=True)]


def with_disturbance(
    use: SliceUse, found: Sequence[Disturbance | None], watched: frozenset[Cause], unit: str
) -> SliceUse:
    """The use where these slices are DISTURBED; where more than half are, the whole run is."""
    flags = np.array([one is not None for one in found], np.bool_)
    why = _of_most([one for one in found if one], len(found), unit) if 2 * int(flags.sum()) > flags.size else None
    return replace(use, disturbed=flags, watched=watched, disturbance=why)


def _of_most(found: Sequence[Disturbance], slices: int, unit: str) -> Disturbance:
    """The cause of most slices, with its mean share over them."""
    causes = [one.cause for one in found]
    of_most = [one for one in found if one.cause == max(causes, key=causes.count)]
    mean = sum(one.percent for one in of_most) / len(of_most)
    cause = of_most[0].cause
    reason = f"{reason_of(cause, mean)} in {len(of_most)} of {slices} {unit}"
    return Disturbance(cause, mean, of_most[0].limit_percent, reason)
