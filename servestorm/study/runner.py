"""A study of servers: what a plan with engines asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from models.manifest import ModelDir
from servestorm.plan.cells import variants_of
from servestorm.plan.study_plan import ModelPlan, Plan
from servestorm.rundir import files
from servestorm.rundir.record import RunRecord
from servestorm.study.backend_choice import choose_backend
from servestorm.study.context import StudyContext, autoscaler_of
from servestorm.study.cores import assign
from servestorm.study.load import LoadSource
from servestorm.study.machine_counters import KERNEL, MachineReader
from servestorm.study.model_preparation import is_missing, prepare
from servestorm.study.payloads import refuse_payloads
from servestorm.study.progress import Display
from servestorm.study.round_run import run_round
from servestorm.study.scraper import open_scraper
from servestorm.study.study_run import RunsRound, StudyRun
from serving.backend import counted
from serving.deployment import Engine
from serving.engines import ENGINES
from serving.wire import WIRES


class Study(StudyRun):
    """Servers under load, and their starts. With `keep`, the cell that fails first leaves its Helm release, which its
    reason names.
    """

    def __init__(
        self,
        plan: Plan,
        plan_text: str,
        out: Path,
        generator: LoadSource | None = None,
        resume: RunRecord | None = None,
        keep: bool = False,
        machine: MachineReader = KERNEL,
    ) -> None:
        super().__init__(plan, plan_text, out, assign(plan), resume, keep, machine)
        self.engines: Mapping[str, Engine] = {name: ENGINES[name] for name in plan.engines}
        choice = choose_backend(plan, self.cores, keep=keep)
        self.backend, self.generator = choice.backend, generator or choice.generator

    def versions(self) -> dict[str, str]:
        """See StudyRun: where they run."""
        return {name: self._check(engine) for name, engine in self.engines.items()}

    def missing_models(self) -> list[ModelPlan]:
        """See StudyRun."""
        return [model for model in self.plan.model if is_missing(model)]

    def models(self, display: Display) -> list[ModelDir]:
        """See StudyRun."""
        return [self._prepare(model, display) for model in self.plan.model]

    def further_environment(self) -> files.JsonObject:
        """See StudyRun."""
        return dict(self.backend.environment())

    def _check(self, engine: Engine) -> str:
        """Version of the engine where it runs; an autoscaler's rights are asked for before anything starts, too."""
        autoscaler = autoscaler_of(self.plan)
        backend = self.backend.autoscaled(autoscaler) if autoscaler else self.backend
        return backend.check(engine)

    def remove_leftovers(self) -> None:
        """On a Docker Engine or in a cluster, as every command does here."""
        if leftovers := self.backend.leftovers():
            leftovers.remove()
            removed = counted(leftovers.items)
            sys.stderr.write(f"servestorm: removed {removed} that an earlier, killed study had left.\n")

    def _prepare(self, plan: ModelPlan, display: Display) -> ModelDir:
        """A model, with the artifacts of every engine of the plan intact."""
        if is_missing(plan):
            with display.step():
                model = prepare(plan, display.fraction)
        else:
            model = prepare(plan, lambda _what, _share: None)
        for engine in self.engines.values() if not self.plan.runs_already else ():
            model.verify("mar" if engine.artifact == "mar" else "savedmodel")
        for name in self.engines:
            refuse_payloads(self.plan, WIRES[name], model)
        return model

    @contextmanager
    def round_runner(self, models: Sequence[ModelDir], display: Display) -> Iterator[RunsRound]:
        """See StudyRun."""
        with self._shared_by_all(models) as context:
            yield partial(run_round, context)

    @contextmanager
    def _shared_by_all(self, models: Sequence[ModelDir]) -> Iterator[StudyContext]:
        """What every round needs; we and what we start stay off the engine's cores meanwhile."""
        with ExitStack() as stack:
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, self.cores.generator)  # the backend gives each server its own set
            scraper = stack.enter_context(open_scraper())
            shared = (self.engines, self.backend, self.cores, scraper, self.generator, self.machine)
            yield StudyContext(self.plan, variants_of(self.plan), models, *shared)
