"""What one replica may use, as a plan has it: in a cluster there is always a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servestorm.plan.deployments import CHART_CPUS, CHART_MEMORY_MIB


def limits_of(plan: Mapping[str, Any]) -> tuple[float | None, int | None]:
    """CPUs and memory in MiB of a stored plan (study.json's); None is no limit."""
    said = plan.get("limits") or {}
    cpus, memory_mib = said.get("cpus"), said.get("memory_mib")
    if plan.get("backend") == "kubernetes":
        return cpus or CHART_CPUS, memory_mib or CHART_MEMORY_MIB
    return cpus, memory_mib
