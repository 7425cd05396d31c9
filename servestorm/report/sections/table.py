"""The sections of figures in the order of the page: a new one is a file beside this one, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from servestorm.analysis.results import Results
from servestorm.report.part import Section
from servestorm.report.sections import (
    autoscaling,
    bursts,
    capacity,
    claims,
    cold_start,
    cost,
    fleet_cost,
    latency_split,
    over_time,
    resource_use,
    runs,
    scaling,
    scaling_law,
    spectrum,
    sweep,
    training,
    verdicts,
)

SECTIONS: tuple[Callable[[Results], Section], ...] = (
    verdicts.section,
    training.section,
    cold_start.section,
    over_time.section,
    spectrum.section,
    latency_split.section,
    bursts.section,
    capacity.section,
    scaling.section,
    scaling_law.section,
    autoscaling.section,
    fleet_cost.section,
    sweep.section,
    cost.section,
    resource_use.section,
    runs.section,
    claims.section,
)
"""Each makes its section from the results of a study; without parts where there is nothing to draw."""
