"""Going on with a run directory whose study was stopped: what is complete there is kept, nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path

from pydantic import JsonValue

from servestorm.errors import StudyError
from servestorm.plan.cells import Cell, rounds_of
from servestorm.plan.study_plan import Plan
from servestorm.rundir import files
from servestorm.rundir.record import RunRecord
from servestorm.study.cores import Cores


def complete_cells(record: RunRecord, cells: Sequence[Cell], plan: Plan) -> set[str]:
    """Ids of the cells that need not run again: a round is complete as a whole, or runs again as a whole.

    Raises StudyError where the run is of another plan or is whole."""
    if record.study.state == "complete":
        raise StudyError(f"{record.study.id} is complete: draw it again with `servestorm report {record.path}`.")
    if not _same_plan(record.stored.study["plan"], plan) or record.study.cells != [cell.id for cell in cells]:
        raise StudyError(
            f"{record.path / files.PLAN} does not give the study that was begun: it was edited, or comes from "
            "another version; run the plan anew."
        )
    complete = {cell.cell.id for cell in record.cells if cell.complete}
    rounds = [{cell.id for cell in together} for together in rounds_of(plan, cells)]
    return {name for together in rounds if together <= complete for name in together}


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
        if cell.cell.id not in complete:
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
