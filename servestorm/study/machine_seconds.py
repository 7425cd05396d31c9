"""What the machine did in each second of a load, from CPU times that were read once a second."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from servestorm.rundir.machine_table import MachineSecond
from servestorm.study.cores import Cores


@dataclass(frozen=True)
class CpuTimes:
    """The CPU times of Counters alone, which may be read once a second."""

    monotonic_ns: int
    busy_s: Mapping[int, float] | None
    steal_s: Mapping[int, float] | None
    ours_s: float | None
    interrupts_s: Mapping[int, float] | None = None


def by_second(readings: Sequence[CpuTimes], cores: Cores) -> list[MachineSecond]:
    """What happened between every two readings, on the cores of the engine and of the generator."""
    return [_second(begin, end, cores) for begin, end in itertools.pairwise(readings)]


def _second(begin: CpuTimes, end: CpuTimes, cores: Cores) -> MachineSecond:
    elapsed_s = (end.monotonic_ns - begin.monotonic_ns) / 1e9

    def share(before: Mapping[int, float] | None, after: Mapping[int, float] | None, of: Sequence[int]) -> float | None:
        grown_s = grown(before, after, of)
        return None if grown_s is None or not of or elapsed_s <= 0 else max(0.0, grown_s / (elapsed_s * len(of)))

    study = sorted({*cores.engine, *cores.generator})
    busy, ours_s = share(begin.busy_s, end.busy_s, study), minus(end.ours_s, begin.ours_s)
    interrupts = share(begin.interrupts_s, end.interrupts_s, study) or 0.0
    other = None if busy is None or ours_s is None else max(0.0, busy - interrupts - ours_s / (elapsed_s * len(study)))
    return MachineSecond(
        begin_ns=begin.monotonic_ns,
        end_ns=end.monotonic_ns,
        steal_share=share(begin.steal_s, end.steal_s, study),
        other_share=other,
        ours_s=ours_s,
        engine_busy_share=share(begin.busy_s, end.busy_s, cores.engine),
        engine_steal_share=share(begin.steal_s, end.steal_s, cores.engine),
        generator_busy_share=share(begin.busy_s, end.busy_s, cores.generator),
        generator_steal_share=share(begin.steal_s, end.steal_s, cores.generator),
    )


def grown(begin: Mapping[int, float] | None, end: Mapping[int, float] | None, cores: Sequence[int]) -> float | None:
    """Seconds by which these cores' times have grown together; None where one is unknown."""
    if begin is None or end is None or any(core not in begin or core not in end for core in cores):
        return None
    return sum(end[core] - begin[core] for core in cores)


def minus(end: float | None, begin: float | None) -> float | None:
    """The difference; None where a side is unknown."""
    return None if end is None or begin is None else end - begin
