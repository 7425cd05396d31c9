"""Which metrics the engines of a study are judged on: its results and its decision to end ask the same."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

QUESTIONS: Final = (
    "coldstart.total_s",
    "steady.p50",
    "steady.p99",
    "steady.cpu_ms_per_image",
    "bursty.p50",
    "bursty.p99",
    "capacity.crossing_images_per_s",
    "autoscaling.violations_percent",
    "autoscaling.ready_s",
    "autoscaling.recover_s",
    "autoscaling.replica_seconds",
    "training.epoch_s",
    "training.cpu_ms_per_image",
    "training.top1_percent",
    "training.rss_peak_mib",
    "training.cpu_percent",
)
"""Metrics on which engines are judged, in every group that has them; those of the objectives come on top."""
PROMISED: Final = frozenset({"capacity.images_per_s"})
"""Metrics on which engines are not judged, also where an objective names them: which of two neighbouring rates passed
twice is a matter of chance. The estimate of the same search is judged instead."""


def group_name(scenario: str, label: str) -> str:
    """The name of a group of runs: 'steady', or 'steady[gRPC, 8 images]' where the plan has several variants."""
    return f"{scenario}[{label}]" if label else scenario


def is_asked(key: str, objectives: Collection[str]) -> bool:
    """Whether engines are judged on a metric such as 'steady[gRPC].p50'; `objectives` are the plan's metrics."""
    group, _, name = key.rpartition(".")
    base = f"{group.partition('[')[0]}.{name}"
    return base in QUESTIONS or (key in objectives and base not in PROMISED)
