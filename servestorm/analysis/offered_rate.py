"""Whether an engine kept up with the rate that a steady load asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from servestorm.analysis.metric import Metric
from servestorm.rundir.shapes.study import StudyFile

KEPT_UP_SHARE: Final = 0.95
"""Share of the offered images that an engine must answer in time to have kept up."""


@dataclass(frozen=True)
class OfferedRate:
    """What a group of runs under steady load was asked for."""

    images_per_s: float
    behind: dict[str, float]
    """Throughput (images/s) of each engine that did not keep up: its latencies are those of a growing queue."""


def offered_rate(throughput: Metric, study: StudyFile) -> OfferedRate:
    """The offered rate of a row of throughputs under steady load, and who fell behind it."""
    label = throughput.group.partition("[")[2].removesuffix("]")
    images = next(variant.images_per_request for variant in study.variants if variant.label == label)
    assert study.plan.steady
    asked = study.plan.steady.rate_per_s * images
    behind = {engine: rate for engine, rate in throughput.quotable().items() if rate < KEPT_UP_SHARE * asked}
    return OfferedRate(asked, behind)
