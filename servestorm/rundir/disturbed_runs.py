"""Which runs are DISTURBED by what their use.json and their slices say: the study and the analysis ask the same."""

from __future__ import annotations

from collections.abc import Collection

from servestorm.methods.disturbance import Cause, Disturbance, disturbance, worst
from servestorm.methods.samples import Samples
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes.cell import UseFile
from servestorm.rundir.shapes.study import PlanFile


def disturbance_of(use: UseFile | None, plan: PlanFile, but: Collection[Cause] = ()) -> Disturbance | None:
    """Why the load or the start that left this use.json is DISTURBED; None where it is not, or was not watched.

    The causes of `but` are not judged.
    """
    limits = plan.disturbance_limits
    return disturbance(use.machine_shares, limits, but) if limits and use else None


def load_disturbance(record: CellRecord, plan: PlanFile, samples: Samples | None) -> Disturbance | None:
    """Why a complete run with one load, or a start, is DISTURBED; None where it is not.

    By its slices where the machine was watched second by second, and by the whole load for the rest.
    """
    whole = disturbance_of(record.use, plan, but=samples.use.watched if samples else frozenset())
    by_slices = samples.use.disturbance if samples else None
    return worst(one for one in (whole, by_slices) if one)


def search_disturbance(record: CellRecord, plan: PlanFile) -> Disturbance | None:
    """Why a search is DISTURBED: the worst of the probes that decide its result, or of all where it has none."""
    if not record.capacity:
        return None
    deciding = record.capacity.deciding
    found = (disturbance_of(load.use, plan) for load in record.loads if load.probe in deciding)
    return worst(one for one in found if one)
