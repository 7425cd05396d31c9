"""Going on with a run directory whose study was stopped: what is complete there is kept, nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path

from pydantic import JsonValue

from servestorm.errors import StudyError
from servestorm.plan.cells import Cell, loads_of, rounds_of
from servestorm.plan.study_plan import Plan
from servestorm.rundir import files
from servestorm.rundir.files import read_json
from servestorm.rundir.record import RunRecord, read_run
from servestorm.study.cores import Cores


def complete_cells(record: RunRecord, cells: Sequence[Cell], plan: Plan) -> set[str]:
    """Ids of the cells that need not run again: a load of a round is complete for every engine, or all have it again.

    Raises StudyError where the run is of another plan or is whole."""
    if record.study.state == "complete" and not failed_cells(record):
        raise StudyError(f"{record.study.id} is complete: draw it again with `servestorm report {record.path}`.")
    if not _same_plan(record.stored.study["plan"], plan) or record.study.cells != [cell.id for cell in cells]:
        raise StudyError(
            f"{record.path / files.PLAN} does not give the study that was begun: it was edited, or comes from "
            "another version; run the plan anew."
        )
    complete = {cell.cell.id for cell in record.cells if cell.complete}
    loads = [{cell.id for cell in load} for together in rounds_of(plan, cells) for load in loads_of(together)]
    return {name for load in loads if load <= complete for name in load}


def failed_cells(record: RunRecord) -> set[str]:
    """Ids of the cells that were tried and did not complete: their runs are missing until they are repeated."""
    return {cell.cell.id for cell in record.cells if not cell.complete}


def require_unchanged(record: RunRecord) -> None:
    """Raise StudyError where another command went on with the run between our reading it and our owning it.

    One that was killed meanwhile has left study.json as it was, and more runs that are complete.
    """
    outcomes = {cell.cell.id: cell.outcome for cell in record.cells}
    now = {cell.cell.id: cell.outcome for cell in read_run(record.path).cells}
    if read_json(record.path / files.STUDY) != record.stored.study or now != outcomes:
        raise StudyError(f"another command has just gone on with {record.path}: look at it with `servestorm report`.")


def _same_plan(begun: JsonValue, plan: Plan) -> bool:
    """Whether it asks for what was begun. To ignore disturbance may come later: it changes nothing that is measured."""
    asked: JsonValue = plan.model_dump(mode="json")
    if plan.disturbance == "ignored" and isinstance(begun, dict):
        return {**begun, "disturbance": "ignored"} == asked
    return begun == asked


def reopen(
    record: RunRecord,
    plan: Plan,
    complete: Set[str],
    manifests: Sequence[str],
    versions: Mapping[str, str],
    cores: Cores,
) -> tuple[Path, files.JsonObject]:
    """Make the run directory ready to go on; gives it and its study.json's content.

    What a fault failed stays until it is repeated, for a budget may leave no time for that; what the end of the study
    cut short is removed.

    Raises StudyError where model, engines or cores are no longer what the kept runs were measured with.
    """
    begun, study = record.study, dict(record.stored.study)
    changed = [
        *(
            f"model {json.loads(new)['name']}"
            for new, old in zip(manifests, record.stored.manifests, strict=True)
            if json.loads(new) != old
        ),
        *(f"engine {name}" for name, version in versions.items() if (name, version) not in begun.engines.items()),
        *(["the cores"] if study["cores"] != json.loads(json.dumps(asdict(cores))) else []),
    ]
    if changed:
        raise StudyError(
            f"{changed[0]} is not what {begun.id} was begun with: its runs could not be compared; run the plan anew."
        )
    for cell in record.cells:
        failed = cell.outcome is not None and cell.outcome.state == "failed"
        if cell.cell.id not in complete and not failed:
            shutil.rmtree(cell.path)
    study.update(
        plan=plan.model_dump(mode="json"),
        state="running",
        reason=None,
        ended_at=None,
        resumed_at=[*begun.resumed_at, files.now()],
    )
    files.write_json(record.path / files.STUDY, study)
    return record.path, study
