"""Sweep: every combination of server settings and client batches, in a closed loop."""

from __future__ import annotations

import itertools
from pathlib import Path

from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.rundir.files import SWEEP, load_folder, write_json
from servestorm.rundir.shapes.cell import FinishedLoadFile
from servestorm.rundir.shapes.search import PointFile
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import closed_load
from servestorm.study.scenario import StudyScenario, loads_guess_s, replicas_text


class SweepCells(StudyScenario):
    """One combination of server settings, under every client batch with every number of requests in flight."""

    label = "sweep"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        sweep = load.plan.sweep
        assert sweep
        points: list[PointFile] = []
        for images, in_flight in itertools.product(sweep.images_per_request, sweep.concurrency):
            closed = closed_load(in_flight, sweep.duration_s, sweep.warmup_s, images)
            summary = load.offer(closed, folder / load_folder(len(points) + 1))
            points.append(_point(images, in_flight, summary))
            write_json(folder / SWEEP, [point.model_dump() for point in points])
            load.wait_drained()

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        sweep = plan.sweep
        assert sweep
        loads = len(sweep.concurrency) * len(sweep.images_per_request)
        return loads_guess_s(sweep.duration_s, sweep.warmup_s, loads)

    def runs(self, plan: Plan) -> int:
        """See StudyScenario."""
        return plan.sweep.repetitions if plan.sweep else 1

    def setting(self, cell: Cell) -> str:
        """See StudyScenario."""
        wait = f", {cell.timeout_us} us" if cell.max_batch_size > 1 else ""
        return f", {cell.threads} threads, batches of {cell.max_batch_size}{wait}{replicas_text(cell)}"


def _point(images: int, in_flight: int, summary: FinishedLoadFile) -> PointFile:
    return PointFile(
        images_per_request=images,
        concurrency=in_flight,
        images_per_s=summary.images_per_s,
        p50_ms=summary.latency_ms.p50,
        p99_ms=summary.latency_ms.p99,
        valid=summary.valid,
        reasons=summary.reasons,
    )
