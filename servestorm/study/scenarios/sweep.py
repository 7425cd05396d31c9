"""Sweep: every combination of server settings and client batches, in a closed loop."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path

from servestorm.methods.load_result import LoadResult
from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.rundir.files import SWEEP, load_folder, write_json
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import closed_load
from servestorm.study.scenario import StudyScenario, loads_guess_s, replicas_text


@dataclass(frozen=True)
class SweepPoint:
    """One entry of sweep.json: a closed loop with one client setting."""

    images_per_request: int
    concurrency: int
    images_per_s: float | None
    p50_ms: float | None
    p99_ms: float | None
    valid: bool
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, result: LoadResult, images_per_request: int, concurrency: int) -> SweepPoint:
        """The point of a load."""
        figures = (result.images_per_s, result.p50_ms, result.p99_ms)
        return cls(images_per_request, concurrency, *figures, result.valid, result.reasons)


class SweepCells(StudyScenario):
    """One combination of server settings, under every client batch with every number of requests in flight."""

    label = "sweep"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        sweep = load.plan.sweep
        assert sweep
        points: list[SweepPoint] = []
        for images, in_flight in itertools.product(sweep.images_per_request, sweep.concurrency):
            closed = closed_load(in_flight, sweep.duration_s, sweep.warmup_s, images)
            result = load.offer(closed, folder / load_folder(len(points) + 1))
            points.append(SweepPoint.of(result, images, in_flight))
            write_json(folder / SWEEP, [asdict(point) for point in points])
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
