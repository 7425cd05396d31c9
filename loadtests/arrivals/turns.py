"""A load in turns: several generators share one stretch of time, and only one of them sends at any moment.

The measured schedule is made as ever and cut into pieces, one a turn, so that two loads with the same process, rate and
seed have the same arrivals in their turns of the same number, whenever these are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loadtests.arrivals import processes
from loadtests.arrivals.blocks import BlockSchedule
from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.arrivals.processes import Schedule
from loadtests.errors import LoadTestError

_NS = 1_000_000_000
_NO_END = np.iinfo(np.int64).max
_KEYS = ("begin_s", "lead_s", "length_s")


class Turn(NamedTuple):
    """A stretch of a load: seconds of lead-in at a constant rate, which count in no figure, and the measured ones."""

    begin_s: float
    """Of the lead-in, after the load's start."""
    lead_s: float
    length_s: float
    """Of the measured part; 0 makes the turn a warm-up."""


@dataclass(frozen=True)
class Turns:
    """Turns in order and apart. All arrays are int64 ns after the load's start."""

    turns: Sequence[Turn]

    @property
    def duration_s(self) -> float:
        """Measured seconds, of all turns."""
        return float(sum(turn.length_s for turn in self.turns))

    @property
    def active(self) -> MeasuredTime:
        """When the load is on: lead-in and measured part of every turn."""
        begins = self._begins_ns
        return MeasuredTime(begins, begins + self._leads_ns + self._lengths_ns)

    @property
    def measured(self) -> MeasuredTime:
        """The measured parts, of turns that have one."""
        begins, lengths = self._begins_ns + self._leads_ns, self._lengths_ns
        has_length = lengths > 0
        return MeasuredTime(begins[has_length], (begins + lengths)[has_length])

    def place(self, schedule: BlockSchedule, rate: float) -> BlockSchedule:
        """Arrivals of the whole load: `schedule`, of `duration_s` from 0 on, cut and moved, and the lead-ins."""
        leads = [processes.constant(rate, turn.lead_s) if turn.lead_s > 0 else None for turn in self.turns]
        expected = schedule.expected + sum(lead.expected for lead in leads if lead)

        def make() -> Iterator[Schedule]:
            pieces = self._pieces(schedule)
            for lead, begin_ns, length_ns in zip(leads, self._begins_ns, self._lengths_ns, strict=True):
                if lead:
                    yield from (block + begin_ns for block in lead.blocks())
                if length_ns > 0:
                    yield from next(pieces)

        return BlockSchedule(make, expected)

    def _pieces(self, schedule: BlockSchedule) -> Iterator[Iterator[Schedule]]:
        """The arrivals of each measured turn, moved to where it is; each piece is to be read before the next one."""
        measured, lengths = self.measured, self._lengths_ns[self._lengths_ns > 0]
        edges = np.cumsum(lengths)
        # the schedule may be a nanosecond longer than the sum of the lengths in whole nanoseconds
        upper = [*edges[:-1].tolist(), _NO_END]
        blocks, rest = schedule.blocks(), np.empty(0, np.int64)

        def piece(turn: int) -> Iterator[Schedule]:
            nonlocal rest
            following: Schedule | None = rest
            while following is not None:
                inside = int(np.searchsorted(following, upper[turn]))
                moved = following[:inside] + (measured.begin_ns - (edges - lengths))[turn]
                yield np.minimum(moved, measured.end_ns[turn] - 1)
                rest = following[inside:]
                if len(rest):
                    return
                following = next(blocks, None)

        for turn in range(len(edges)):
            yield piece(turn)

    @property
    def _begins_ns(self) -> NDArray[np.int64]:
        return _in_ns([turn.begin_s for turn in self.turns])

    @property
    def _leads_ns(self) -> NDArray[np.int64]:
        return _in_ns([turn.lead_s for turn in self.turns])

    @property
    def _lengths_ns(self) -> NDArray[np.int64]:
        """Differences of the rounded sums, so that the parts of the schedule have no gap between them."""
        sums = _in_ns(np.cumsum([turn.length_s for turn in self.turns]))
        return np.diff(sums, prepend=np.int64(0))


def read_turns(path: Path) -> Turns:
    """Turns from a JSON file: {"turns": [{"begin_s": 0.0, "lead_s": 2.0, "length_s": 0.0}, ...]}.

    Raises LoadTestError where it cannot be read, or where the turns overlap or none is measured.
    """
    try:
        entries = json.loads(path.read_text())["turns"]
        turns = [_turn(entry) for entry in entries]
    except OSError as error:
        raise LoadTestError(f"--turns {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        keys = ", ".join(_KEYS)
        raise LoadTestError(
            f'--turns {path} does not hold {{"turns": [...]}} of objects with the numbers {keys}, 0 or more.'
        ) from error
    if not any(turn.length_s > 0 for turn in turns):
        raise LoadTestError(f"--turns {path} has no turn with a length_s over 0: nothing would be measured.")
    for number, (turn, following) in enumerate(itertools.pairwise(turns), 1):
        if turn.begin_s + turn.lead_s + turn.length_s > following.begin_s + 1e-9:
            raise LoadTestError(f"--turns {path}: turn {number} has not ended when turn {number + 1} begins.")
    return Turns(turns)


def _turn(entry: Any) -> Turn:
    turn = Turn(*(float(entry[key]) for key in _KEYS))
    if set(entry) != set(_KEYS) or not all(np.isfinite(value) and value >= 0 for value in turn):
        raise ValueError("not a turn")
    return turn


def _in_ns(seconds: ArrayLike) -> NDArray[np.int64]:
    rounded: NDArray[np.float64] = np.rint(np.asarray(seconds, np.float64) * _NS)
    return rounded.astype(np.int64)
