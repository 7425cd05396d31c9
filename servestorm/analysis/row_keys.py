"""The keys of the rows that results may have: of a plan before it is carried out, and of any plan."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from servestorm.analysis.groups import groups_of, scenario_of
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.errors import StudyError
from servestorm.plan.cells import Scenario, variants_of
from servestorm.plan.labels import phases_of
from servestorm.plan.study_plan import Plan
from servestorm.rundir.shapes.study import StudyFile

_ANY_NUMBER = "N"
"""Ends the name of a row that there is for every number of replicas."""


def refuse_unknown_objectives(plan: Plan) -> None:
    """Raise StudyError where an objective is on a metric, or of an engine, that the plan does not measure."""
    keys = keys_of(plan) if plan.objectives else []
    for objective in plan.objectives:
        if objective.metric not in keys:
            raise StudyError(
                f"`objectives`: {objective.metric!r} is no figure of this plan{_nearest(objective.metric, keys)}"
            )
        if absent := [engine for engine in objective.engines or () if engine not in plan.engines]:
            raise StudyError(f"`objectives`: {absent[0]} is not among the `engines` of this plan: take it out.")


def refuse_unknown_metrics(keys: Sequence[str]) -> None:
    """Raise StudyError where a key, its variant left out, is of no scenario's row."""
    known = [f"{scenario}.{name}" for scenario in SCENARIO_ANALYSES for name in _names(scenario)]
    for key in keys:
        base = re.sub(r"\[[^\]]*\]", "", key)
        if not any(re.fullmatch(re.escape(one).replace(f"x{_ANY_NUMBER}", r"x\d+"), base) for one in known):
            raise StudyError(f"--metric {key!r} is no figure of any study{_nearest(base, known)}")


def keys_of(plan: Plan) -> list[str]:
    """The keys of all rows that the plan's results may have, in their order."""
    return [key for group in groups_of(_as_stored(plan)) for key in _keys(group, plan)]


def _keys(group: str, plan: Plan) -> Iterator[str]:
    counts = plan.scaling.replicas if plan.scaling else ()
    for name in _names(scenario_of(group)):
        if name.endswith(f"x{_ANY_NUMBER}"):
            yield from (f"{group}.{name.removesuffix(_ANY_NUMBER)}{count}" for count in counts)
        else:
            yield f"{group}.{name}"


def _names(scenario: Scenario) -> list[str]:
    """The rows that runs of a scenario may have. A pod's start has phases of its own."""
    names = [row.name for row in SCENARIO_ANALYSES[scenario].defined_rows()]
    pod = [f"{phase}_s" for phase in phases_of("kubernetes")] if scenario == "coldstart" else []
    return [*names, *(name for name in pod if name not in names)]


def _as_stored(plan: Plan) -> StudyFile:
    """What study.json will say of the plan."""
    variants = [asdict(variant) for variant in variants_of(plan)]
    nothing: dict[str, object] = {
        "id": "",
        "state": "running",
        "reason": None,
        "started_at": "2000-01-01T00:00:00+00:00",
        "resumed_at": [],
    }
    cores: dict[str, object] = {"engine": [], "generator": [], "notes": []}
    return StudyFile.model_validate(
        {
            **nothing,
            "plan": plan.model_dump(mode="json"),
            "variants": variants,
            "cores": cores,
            "engines": {},
            "cells": [],
        }
    )


def _nearest(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    return f", did you mean {close[0]}?" if close else f": there are {', '.join(known) or 'none'}."
