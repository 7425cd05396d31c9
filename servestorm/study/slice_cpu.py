"""What the servers of a round used in each slice, from readings in the gaps between slices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from servestorm.methods.known_sums import sum_if_known
from servestorm.plan.turns import LoadTurn, Slicing
from servestorm.rundir.shapes.slices import SliceFile, SlicesFile

S_NS = 10**9


class SliceInTime(NamedTuple):
    """A slice in the order of the round: whose it is, and its turn."""

    owner: int
    turn: LoadTurn


@dataclass(frozen=True)
class CpuReading:
    """CPU time that a deployment had used at one moment."""

    t_ns: int
    """Of the monotonic clock, when the reading was complete."""
    cpu_s: float | None


def slices_in_time(tables: Sequence[Sequence[LoadTurn]]) -> list[SliceInTime]:
    """The slices of all deployments, one after the other; warm-ups are none."""
    every = [SliceInTime(owner, turn) for owner, table in enumerate(tables) for turn in table if turn.length_s]
    return sorted(every, key=lambda one: one.turn.begin_s)


def reading_times_s(slices: Sequence[SliceInTime], gap_s: float) -> list[float]:
    """When CPU time is read: in the gap before the first slice, and in the one after each; seconds from the start."""
    return [slices[0].turn.begin_s - gap_s / 2, *(one.turn.end_s + gap_s / 2 for one in slices)]


def slice_files(
    tables: Sequence[Sequence[LoadTurn]], slicing: Slicing, start_ns: int, readings: Sequence[Sequence[CpuReading]]
) -> list[SlicesFile]:
    """slices.json of each deployment.

    `readings` holds, in the order of `reading_times_s`, one reading of each deployment; there may be fewer of them
    where the round was stopped.
    """
    order = slices_in_time(tables)
    gaps = _gap_ends_ns(order, start_ns)
    used = [
        [_grown(before, after, ends) for before, after in zip(*pair, strict=True)]
        for pair, ends in zip(itertools.pairwise(readings), itertools.pairwise(gaps), strict=False)
    ]
    used += [[_UNKNOWN] * len(tables)] * (len(order) - len(used))
    return [_file(owner, order, used, slicing, start_ns) for owner in range(len(tables))]


class _Used(NamedTuple):
    """What a deployment used between two readings; None where one of them is missing or late."""

    cpu_s: float | None
    elapsed_s: float | None


_UNKNOWN = _Used(None, None)


def _gap_ends_ns(order: Sequence[SliceInTime], start_ns: int) -> list[int | None]:
    """When the gap of each reading ends; the last one has no end."""
    return [*(start_ns + round(one.turn.begin_s * S_NS) for one in order), None]


def _grown(before: CpuReading, after: CpuReading, gap_ends_ns: tuple[int | None, int | None]) -> _Used:
    """The difference; unknown where a reading was still busy when the next slice began."""
    late = any(
        end is not None and reading.t_ns > end for reading, end in zip((before, after), gap_ends_ns, strict=True)
    )
    if late or before.cpu_s is None or after.cpu_s is None:
        return _UNKNOWN
    return _Used(max(0.0, after.cpu_s - before.cpu_s), (after.t_ns - before.t_ns) / S_NS)


def _file(
    owner: int, order: Sequence[SliceInTime], used: Sequence[Sequence[_Used]], slicing: Slicing, start_ns: int
) -> SlicesFile:
    deployments = len(used[0])
    slices = []
    for first in range(0, len(order), deployments):  # the slices of one number are neighbours
        neighbours = range(first, first + deployments)
        own = next(place for place in neighbours if order[place].owner == owner)
        idle = [used[place][owner] for place in neighbours if place != own]
        turn = order[own].turn
        slices.append(
            SliceFile(
                begin_ns=start_ns + round(turn.begin_s * S_NS),
                end_ns=start_ns + round(turn.end_s * S_NS),
                cpu_s=used[own][owner].cpu_s,
                idle_cpu_s=sum_if_known([one.cpu_s for one in idle]),
                idle_s=sum_if_known([one.elapsed_s for one in idle]),
            )
        )
    return SlicesFile(lead_s=slicing.lead_s, length_s=slicing.length_s, slices=slices)
