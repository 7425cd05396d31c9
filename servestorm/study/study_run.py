"""A study from plan to run directory, whatever it measures. What was measured is kept whatever happens."""

from __future__ import annotations

import dataclasses
import shutil
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Final, Protocol

from models.manifest import MANIFEST_NAME, ModelDir
from servestorm.plan.cells import Cell, cells_of, rounds_of, variants_of
from servestorm.plan.study_plan import ModelPlan, Plan
from servestorm.rundir import files
from servestorm.rundir.owner import owned
from servestorm.rundir.record import RunRecord, read_run
from servestorm.study import resume as resumed
from servestorm.study.cores import Cores
from servestorm.study.disturbance import FirstLoads, look
from servestorm.study.environment import describe
from servestorm.study.expected_time import PREPARE_GUESS_S, steps
from servestorm.study.machine_counters import KERNEL, MachineReader
from servestorm.study.outcome import CellOutcome
from servestorm.study.progress import Display
from servestorm.study.stopping import Stopping
from serving.errors import DeploymentError
from serving.supervisor import supervise

GIVE_UP_AFTER: Final = 2
"""Rounds in a row in which an engine that never worked may fail before the study ends."""


class RunsRound(Protocol):
    """Runs one round."""

    def __call__(self, cells: Sequence[Cell], folders: Sequence[Path]) -> list[CellOutcome]:
        """Run the cells, each with its folder."""
        ...


class StudyRun(ABC):
    """One study: `carry_out` runs it; `path` is its run directory once all that it needs is there.

    With `resume` it goes on in that run directory: what is complete there is kept, the rest is run. With `keep` it ends
    with the first cell that fails. `machine` is where it learns what the machine does.
    """

    def __init__(
        self,
        plan: Plan,
        plan_text: str,
        out: Path,
        cores: Cores,
        resume: RunRecord | None = None,
        keep: bool = False,
        machine: MachineReader = KERNEL,
    ) -> None:
        self.plan, self.plan_text, self.out, self.cores = plan, plan_text, out, cores
        self.cells = cells_of(plan)
        self.keep, self.machine = keep, machine
        self.path: Path | None = None
        self._resume = resume
        self._complete = resumed.complete_cells(resume, self.cells, plan) if resume else set()
        self._failed: set[str] = set()
        """Ids of the cells that failed and were not repeated."""
        self._study: files.JsonObject = {}

    @abstractmethod
    def remove_leftovers(self) -> None:
        """End what an earlier, killed study left."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The version of each engine, or framework; raises where one cannot run here."""

    @abstractmethod
    def missing_models(self) -> list[ModelPlan]:
        """The models that must be made first."""

    @abstractmethod
    def models(self, display: Display) -> list[ModelDir]:
        """The models of the plan, made first where they are missing."""

    @abstractmethod
    def further_environment(self) -> files.JsonObject:
        """What environment.json says besides this machine."""

    @abstractmethod
    def round_runner(self, models: Sequence[ModelDir], display: Display) -> AbstractContextManager[RunsRound]:
        """How a round is run, with what every round needs."""

    def carry_out(self) -> Path:
        """Run every cell; returns the run directory. Raises what stopped it, after everything was written.

        Raises StudyError where another process writes into the run directory that it goes on with.
        """
        supervise()  # now, and not beside the first server's start
        with ExitStack() as until_end:
            if self._resume:
                until_end.enter_context(owned(self._resume.path))
                resumed.require_unchanged(self._resume)
            return self._carry_out(until_end)

    def _carry_out(self, until_end: ExitStack) -> Path:
        self.remove_leftovers()
        versions, missing = self.versions(), self.missing_models()
        rounds = [left for cells in rounds_of(self.plan, self.cells) if (left := self._not_complete(cells))]
        with Display(steps(self.plan, rounds, missing)) as display:
            if self.plan.budget is not None:  # which begins after the preparation: a guess until then
                display.outlook.ends_by(time.monotonic() + PREPARE_GUESS_S * len(missing) + self.plan.budget)
            models = self.models(display)
            self._open(models, versions, until_end)
            try:
                self._run_rounds(models, rounds, display)
            except KeyboardInterrupt:
                self._close("interrupted", "interrupted by the user")
                raise
            except BaseException as error:
                self._close("failed", str(error))
                raise
        self._close_at_end()
        assert self.path is not None
        return self.path

    def _not_complete(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if cell.id not in self._complete]

    def _open(self, models: Sequence[ModelDir], versions: Mapping[str, str], until_end: ExitStack) -> None:
        """The run directory with all that is known before the first round; it stays this study's until its end."""
        manifests = [(model.path / MANIFEST_NAME).read_text() for model in models]
        if self._resume:
            self.path, self._study = resumed.reopen(
                self._resume, self.plan, self._complete, manifests, versions, self.cores
            )
            self._failed = resumed.failed_cells(read_run(self.path))
            return
        path = files.create_run(self.out, self.plan.name)
        try:
            until_end.enter_context(owned(path))
            self._study = self._begun(path.name, models, versions)
            self._write_inputs(path, manifests)
            files.write_json(path / files.STUDY, self._study)
        except BaseException:  # nothing was measured, and a directory without a whole study.json is no run
            shutil.rmtree(path, ignore_errors=True)
            raise
        self.path = path

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
        files.write_json(path / files.ENVIRONMENT, {**dataclasses.asdict(machine), **self.further_environment()})

    def _close(self, state: files.State, reason: str | None) -> None:
        self._study.update(state=state, reason=reason, ended_at=files.now())
        if self.path:
            files.write_json(self.path / files.STUDY, self._study)

    def _close_at_end(self) -> None:
        """Every round was tried: the study is complete, unless runs of it failed."""
        if not self._failed:
            self._close("complete", None)
            return
        count = len(self._failed)
        runs = "1 run" if count == 1 else f"{count} runs"
        left = ", if the budget leaves time" if self.plan.budget is not None else ""
        repeats = f"`servestorm run --resume {self.path}` repeats {'it' if count == 1 else 'them'}{left}"
        self._close("incomplete", f"{runs} failed; {repeats}")

    def _look(self, display: Display) -> None:
        """Say what the machine does before anything is measured on it."""
        if self.plan.load_from == "here":
            for line in look(self.machine, self.cores, self.plan.disturbance_limits):
                display.tell(line)

    def _run_rounds(self, models: Sequence[ModelDir], rounds: Sequence[Sequence[Cell]], display: Display) -> None:
        pending = deque(rounds)
        stopping = self._stopping(display)  # a budget is spent from here on
        self._look(display)
        troubles, first_loads = _Troubles(), FirstLoads(self.plan, [cell for cells in rounds for cell in cells])
        with self.round_runner(models, display) as run_round:
            while cells := self._next_round(pending, stopping, display):
                folders = [self._emptied(cell) for cell in cells]
                with display.step(*steps(self.plan, [cells], [])):
                    outcomes = run_round(cells, folders)
                self._report_failure(cells, outcomes, display)
                for cell, outcome in zip(cells, outcomes, strict=True):
                    if outcome.state == "complete":
                        self._failed.discard(cell.id)
                        first_loads.saw(cell, self._folder(cell))
                    else:
                        self._failed.add(cell.id)
                    troubles.saw(cell, outcome)
                if stopping:
                    self._judge(stopping, cells, pending, display)
        if stopping:
            stopping.end()
            self._study.update(stopping.record)

    def _stopping(self, display: Display) -> Stopping | None:
        """What ends a study with a budget; None of any other."""
        if self.plan.budget is None:
            return None
        stopping = Stopping(self.plan, rounds_of(self.plan, self.cells), self._resume)
        display.outlook.ends_by(time.monotonic() + self.plan.budget - stopping.spent_s)
        return stopping

    def _next_round(
        self, pending: deque[Sequence[Cell]], stopping: Stopping | None, display: Display
    ) -> Sequence[Cell]:
        """The cells that run next; empty where none is left, or none that is worth its time."""
        if stopping is None:
            return pending.popleft() if pending else ()
        before = len(pending)
        cells = stopping.next_round(pending)
        display.outlook.skip(before - len(pending) - 1 if cells else 0)
        return cells

    def _judge(
        self, stopping: Stopping, cells: Sequence[Cell], pending: Sequence[Sequence[Cell]], display: Display
    ) -> None:
        """Judge what the round decided; study.json says at once at which share of the budget that was."""
        assert self.path is not None
        for line in stopping.look(cells, self.path, pending):
            display.tell(line)
        self._study.update(stopping.record)
        files.write_json(self.path / files.STUDY, self._study)

    def _folder(self, cell: Cell) -> Path:
        assert self.path is not None
        return self.path / files.CELLS / cell.id

    def _emptied(self, cell: Cell) -> Path:
        """The cell's folder, without what it left when it failed before."""
        folder = self._folder(cell)
        if folder.exists():
            shutil.rmtree(folder)
        return folder

    def _report_failure(self, cells: Sequence[Cell], outcomes: Sequence[CellOutcome], display: Display) -> None:
        """A line on a round that failed, which ends a study with `--keep`."""
        failed = [place for place, outcome in enumerate(outcomes) if outcome.state != "complete"]
        if not failed:
            return
        names, reason = " and ".join(cells[place].id for place in failed), outcomes[failed[0]].reason
        display.tell(f"{names} failed: {reason}")
        if self.keep:
            raise DeploymentError(f"--keep ended the study with {names}: {reason}")


class _Troubles:
    """Ends a study whose engine never works, instead of failing every round of it for minutes."""

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}

    def saw(self, cell: Cell, outcome: CellOutcome) -> None:
        """Count; raises what the engine's cells failed of once it failed too often without any success.

        A round that another engine failed says nothing about this one.
        """
        if outcome.state == "complete":
            self._failed[cell.engine] = -(10**9)
        if outcome.fault_of not in (None, cell.id):
            return
        self._failed[cell.engine] = self._failed.get(cell.engine, 0) + 1
        if self._failed[cell.engine] >= GIVE_UP_AFTER:
            raise DeploymentError(f"{cell.engine} failed {GIVE_UP_AFTER} times without a success: {outcome.reason}")
