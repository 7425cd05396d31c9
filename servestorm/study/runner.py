"""A study from plan to run directory. What was measured is kept whatever happens."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from models.manifest import MANIFEST_NAME, ModelDir
from servestorm.plan.cells import Cell, cells_of, variants_of
from servestorm.plan.study_plan import ModelPlan, Plan
from servestorm.rundir import files
from servestorm.rundir.record import RunRecord
from servestorm.study import resume as resumed
from servestorm.study.backend_choice import choose_backend
from servestorm.study.cell_run import CellOutcome, run_cell
from servestorm.study.context import StudyContext, autoscaler_of
from servestorm.study.cores import Cores, assign
from servestorm.study.disturbance import FirstLoads, look
from servestorm.study.environment import describe
from servestorm.study.expected_time import steps
from servestorm.study.load import LoadSource
from servestorm.study.machine_counters import KERNEL, MachineReader
from servestorm.study.model_preparation import is_missing, prepare
from servestorm.study.progress import Display
from servestorm.study.scraper import open_scraper
from serving.backend import counted
from serving.deployment import Engine
from serving.engines import ENGINES
from serving.errors import DeploymentError

GIVE_UP_AFTER = 2
"""Cells in a row in which an engine that never worked may fail before the study ends."""


class Study:
    """One study: `carry_out` runs it; `path` is its run directory once the models are there.

    With `resume` it goes on in that run directory: what is complete there is kept, the rest is run. With `keep` it ends
    with the first cell that fails, and leaves its Helm release for inspection; the cell's reason names it. `machine` is
    where it learns what the machine does.
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
        self.plan, self.plan_text, self.out = plan, plan_text, out
        self.cells = cells_of(plan)
        self.cores: Cores = assign(plan)
        self.engines: Mapping[str, Engine] = {name: ENGINES[name] for name in plan.engines}
        self.keep, self.machine = keep, machine
        choice = choose_backend(plan, self.cores, keep=keep)
        self.backend, self.generator = choice.backend, generator or choice.generator
        self.path: Path | None = None
        self._resume = resume
        self._complete = resumed.complete_cells(resume, self.cells, plan) if resume else set()
        self._study: files.JsonObject = {}

    def carry_out(self) -> Path:
        """Run every cell; returns the run directory. Raises what stopped it, after everything was written."""
        self._remove_leftovers()
        versions = {name: self._check(engine) for name, engine in self.engines.items()}
        missing = [model for model in self.plan.model if is_missing(model)]
        to_run = [cell for cell in self.cells if cell.id not in self._complete]
        with Display(steps(self.plan, to_run, missing)) as display:
            models = [self._prepare(model, display) for model in self.plan.model]
            self._open(models, versions)
            try:
                self._look(display)
                self._run_cells(models, to_run, display)
            except KeyboardInterrupt:
                self._close("interrupted", "interrupted by the user")
                raise
            except BaseException as error:
                self._close("failed", str(error))
                raise
        self._close("complete", None)
        assert self.path is not None
        return self.path

    def _check(self, engine: Engine) -> str:
        """Version of the engine where it runs; an autoscaler's rights are asked for before anything starts, too."""
        autoscaler = autoscaler_of(self.plan)
        backend = self.backend.autoscaled(autoscaler) if autoscaler else self.backend
        return backend.check(engine)

    def _remove_leftovers(self) -> None:
        """End what an earlier, killed study left on a Docker Engine or in a cluster, as every command does here."""
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
        return model

    def _open(self, models: Sequence[ModelDir], versions: Mapping[str, str]) -> None:
        manifests = [(model.path / MANIFEST_NAME).read_text() for model in models]
        if self._resume:
            self.path, self._study = resumed.reopen(self._resume, self.plan, manifests, versions, self.cores)
            return
        path = self.path = files.create_run(self.out, self.plan.name)
        self._study = self._begun(path.name, models, versions)
        self._write_inputs(path, manifests)
        files.write_json(path / files.STUDY, self._study)

    def _begun(self, run: str, models: Sequence[ModelDir], versions: Mapping[str, str]) -> files.JsonObject:
        """study.json of a study that begins."""
        return {
            "schema_version": files.SCHEMA_VERSION,
            "id": run,
            "state": "running",
            "reason": None,
            "started_at": files.now(),
            "ended_at": None,
            "resumed_at": [],
            "plan": self.plan.model_dump(mode="json"),
            "variants": [dataclasses.asdict(variant) for variant in variants_of(self.plan)],
            "cores": dataclasses.asdict(self.cores),
            "engines": dict(versions),
            "model_paths": [str(model.path) for model in models],
            "cells": [cell.id for cell in self.cells],
        }

    def _write_inputs(self, path: Path, manifests: Sequence[str]) -> None:
        """The plan, the models' manifests, the prices and the environment."""
        files.write_text(path / files.PLAN, self.plan_text)
        for place, manifest in enumerate(manifests):
            files.write_text(path / files.manifest_name(place), manifest)
        if self.plan.prices:
            files.write_text(path / files.PRICES, self.plan.prices.read_text(encoding="utf-8"))
        machine = describe(self.plan.seed, self.cores.engine, self.cores.generator)
        files.write_json(path / files.ENVIRONMENT, {**dataclasses.asdict(machine), **self.backend.environment()})

    def _close(self, state: files.State, reason: str | None) -> None:
        self._study.update(state=state, reason=reason, ended_at=files.now())
        if self.path:
            files.write_json(self.path / files.STUDY, self._study)

    def _look(self, display: Display) -> None:
        """Say what the machine does before anything is measured on it."""
        if self.plan.load_from == "here":
            for line in look(self.machine, self.cores, self.plan.disturbance_limits):
                display.tell(line)

    def _run_cells(self, models: Sequence[ModelDir], cells: Sequence[Cell], display: Display) -> None:
        assert self.path is not None
        troubles, first_loads = _Troubles(), FirstLoads(self.plan, cells)
        with ExitStack() as stack:
            # we and what we start stay off the engine's cores; the backend gives each server its own set
            before = os.sched_getaffinity(0)
            stack.callback(os.sched_setaffinity, 0, before)
            os.sched_setaffinity(0, self.cores.generator)
            scraper = stack.enter_context(open_scraper())
            variants = variants_of(self.plan)
            shared = (self.engines, self.backend, self.cores, scraper, self.generator, self.machine)
            context = StudyContext(self.plan, variants, models, *shared)
            for cell in cells:
                folder = self.path / files.CELLS / cell.id
                with display.step():
                    outcome = run_cell(context, cell, folder)
                if outcome.state != "complete":
                    display.tell(f"{cell.id} failed: {outcome.reason}")
                    if self.keep:
                        raise DeploymentError(f"--keep ended the study with {cell.id}: {outcome.reason}")
                else:
                    first_loads.saw(cell, folder)
                troubles.saw(cell.engine, outcome)


class _Troubles:
    """Ends a study whose engine never works, instead of failing every cell of it for minutes."""

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}

    def saw(self, engine: str, outcome: CellOutcome) -> None:
        """Count; raises what the engine's cells failed of once it failed too often without any success."""
        if outcome.state == "complete":
            self._failed[engine] = -(10**9)
        self._failed[engine] = self._failed.get(engine, 0) + 1
        if self._failed[engine] >= GIVE_UP_AFTER:
            raise DeploymentError(f"{engine} failed {GIVE_UP_AFTER} times without a success: {outcome.reason}")
