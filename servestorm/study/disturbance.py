"""What a study sees of the machine before it begins, and whether its first loads show that it cannot measure there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from servestorm.errors import StudyInvalid
from servestorm.methods.disturbance import REMEDIES, Disturbance, DisturbanceLimits, MachineShares, disturbance, worst
from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.rundir.files import load_folders
from servestorm.study.cell_load import disturbance_in
from servestorm.study.cores import Cores
from servestorm.study.machine_counters import MachineReader, Memory
from servestorm.study.machine_seconds import by_second

IGNORE: Final = "--ignore-disturbance"
"""The option of `servestorm run` with which no run is DISTURBED."""
GIB: Final = 2**30


def look(machine: MachineReader, cores: Cores, limits: DisturbanceLimits | None) -> list[str]:
    """Look at the machine for `machine.look_s` seconds; one sentence on what was seen, and one where it is too much."""
    meter = machine.cpu_meter()
    begin = meter(0.0)
    time.sleep(machine.look_s)
    (seen,) = by_second([begin, meter(0.0)], cores)
    shares = MachineShares(_percent(seen.other_share), _percent(seen.steal_share))
    lines = [_seen_text((seen.end_ns - seen.begin_ns) / 1e9, shares, cores, machine.memory())]
    if limits and (found := disturbance(shares, limits)):
        lines.append(
            f"This machine is not quiet: {found.reason}, and runs with over {found.limit_percent:g} % are DISTURBED, "
            f"without a verdict; {REMEDIES[found.cause]}, or go on with {IGNORE}."
        )
    return lines


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _seen_text(seconds: float, shares: MachineShares, cores: Cores, memory: Memory) -> str:
    """'machine, over 3 s: other programs used 2 % of cores 0 and 1, ...'"""
    named = sorted({*cores.engine, *cores.generator})
    where = f"core {named[0]}" if len(named) == 1 else f"cores {', '.join(map(str, named))}"
    parts = [
        f"other programs used {_figure(shares.other_percent)} of {where}",
        f"the hypervisor took {_figure(shares.steal_percent)} (steal)",
        f"{_gib(memory.available_bytes)} of {_gib(memory.total_bytes)} GiB of memory are available",
        f"{_gib(memory.swap_used_bytes)} GiB are in swap",
    ]
    return f"machine, over {seconds:.0f} s: {', '.join(parts)}."


def _figure(percent: float | None) -> str:
    return "an unknown share" if percent is None else f"{percent:.0f} %"


def _gib(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / GIB:.1f}"


class FirstLoads:
    """Ends a study on a machine where the first run under load of every engine was DISTURBED, attempts included."""

    def __init__(self, plan: Plan, cells: Iterable[Cell]) -> None:
        self._plan = plan
        self._missing = {cell.engine for cell in cells if cell.scenario != "coldstart"}
        self._seen: list[Disturbance | None] = []

    def saw(self, cell: Cell, folder: Path) -> None:
        """Look at a complete run; raises StudyInvalid with cause and remedy where all first ones were DISTURBED."""
        if cell.scenario == "coldstart" or cell.engine not in self._missing:
            return
        self._missing.remove(cell.engine)
        self._seen.append(_of_all([disturbance_in(place, self._plan) for place in _loads(folder)]))
        found = worst(one for one in self._seen if one)
        if self._missing or not found or None in self._seen:
            return
        raise StudyInvalid(
            f"the first run under load of every engine was DISTURBED ({found.reason}; the limit is "
            f"{found.limit_percent:g} %), so the study ends here: {REMEDIES[found.cause]}, then run it again; or go on "
            f"with {IGNORE}."
        )


def _loads(folder: Path) -> list[Path]:
    """The folders of a run's loads: its own, or those of its probes or of a sweep."""
    return [load.path for load in load_folders(folder)] or [folder]


def _of_all(found: Sequence[Disturbance | None]) -> Disturbance | None:
    """The worst, where every load was DISTURBED."""
    return None if None in found else worst(one for one in found if one)
