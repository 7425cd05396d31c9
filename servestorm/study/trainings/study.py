"""A study of trainings: what a plan with `training` asks for. No server stands, and the frameworks get every core."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from models.manifest import ModelDir
from servestorm.plan.study_plan import ModelPlan, Plan
from servestorm.rundir import files
from servestorm.rundir.record import RunRecord
from servestorm.study.cores import Cores
from servestorm.study.environment import package_version
from servestorm.study.machine_counters import KERNEL, MachineReader
from servestorm.study.progress import Display
from servestorm.study.study_run import RunsRound, StudyRun
from servestorm.study.trainings.round import TrainingContext, run_training_round
from serving.extras import require

PACKAGES = {"keras": ("keras", "tensorflow"), "torch": ("torch",)}
"""Of each framework: the packages that are needed, and whose versions are told."""


class TrainingStudy(StudyRun):
    """Networks that learn in each framework, as the plan's `training` says."""

    def __init__(
        self,
        plan: Plan,
        plan_text: str,
        out: Path,
        resume: RunRecord | None = None,
        machine: MachineReader = KERNEL,
    ) -> None:
        cores = Cores(tuple(sorted(os.sched_getaffinity(0))), (), ())
        super().__init__(plan, plan_text, out, cores, resume, machine=machine)

    def remove_leftovers(self) -> None:
        """See StudyRun: the supervisor of a killed study has ended its trainings."""

    def versions(self) -> dict[str, str]:
        """See StudyRun."""
        for framework in self.plan.engines:
            require("train", "a study of trainings", *(name for name in PACKAGES[framework] if name != "keras"))
        return {framework: _version(framework) for framework in self.plan.engines}

    def missing_models(self) -> list[ModelPlan]:
        """See StudyRun: a training makes its own."""
        return []

    def models(self, display: Display) -> list[ModelDir]:
        """See StudyRun: none is served."""
        return []

    def further_environment(self) -> files.JsonObject:
        """See StudyRun: nothing."""
        return {}

    @contextmanager
    def round_runner(self, models: Sequence[ModelDir], display: Display) -> Iterator[RunsRound]:
        """See StudyRun."""
        yield partial(run_training_round, TrainingContext(self.plan, self.cores.engine, self.machine, display.fraction))


def _version(framework: str) -> str:
    """'keras 3.12.0, tensorflow 2.20.0'."""
    return ", ".join(f"{name} {package_version(name)}" for name in PACKAGES[framework])
