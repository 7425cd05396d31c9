"""Groups of runs: the scenario, with the variant where there are several."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from servestorm.plan.labels import SCENARIO_LABELS

SCENARIOS = ("coldstart", "steady", "bursty", "capacity", "scaling", "sweep", "autoscaling")


def groups_of(study: Mapping[str, Any]) -> dict[str, str]:
    """The groups of runs that a study asks for, in order, with their titles."""
    plan = study["plan"]
    found: dict[str, str] = {}
    starts = 0 if runs_already(plan) else plan["cold_starts"]
    for scenario in SCENARIOS:
        if not (starts if scenario == "coldstart" else plan.get(scenario)):  # younger than some runs
            continue
        variants = study["variants"][:1] if scenario == "sweep" else study["variants"]
        starts_of = itertools.product(plan["page_cache"], plan["server_warmup"])
        conditions = list(starts_of) if scenario == "coldstart" else [("warm", True)]
        for variant, (cache, warmup) in itertools.product(variants, conditions):
            label = group_label(scenario, variant, cache, warmup)
            title = f"{SCENARIO_LABELS[scenario]} ({label})" if label else SCENARIO_LABELS[scenario]
            cell = {"scenario": scenario, "page_cache": cache, "server_warmup": warmup}
            found.setdefault(group_key(cell, variant), title)
    return found


def runs_already(plan: Mapping[str, Any]) -> bool:
    """Whether the servers were started by somebody else."""
    return plan["backend"] == "attach" or bool((plan.get("docker") or {}).get("project"))


def group_key(cell: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
    """What a cell is a run of: 'steady', or 'steady[gRPC, 8 images]' where there are several variants."""
    label = group_label(cell["scenario"], variant, cell["page_cache"], cell["server_warmup"])
    return f"{cell['scenario']}[{label}]" if label else str(cell["scenario"])


def group_label(scenario: str, variant: Mapping[str, Any], page_cache: str = "warm", server_warmup: bool = True) -> str:
    """What tells a group from the others of its scenario; '' where nothing does."""
    label = variant["server_label"] if scenario == "coldstart" else variant["label"]
    cold = "cold page cache" if page_cache == "cold" else ""
    return ", ".join(filter(None, [label, cold, "" if server_warmup else "without warm-up"]))
