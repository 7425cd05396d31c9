"""A study from plan to run directory. What was measured is kept whatever happens."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from models.manifest import MANIFEST_NAME, ModelDir
from servestorm import store
from servestorm.cellrun import Bench, run_cell
from servestorm.cells import Cell, cells_of, expected_s
from servestorm.cores import Cores, assign
from servestorm.environment import describe
from servestorm.generator import Generator
from servestorm.plan import Plan
from servestorm.prepare import is_missing, prepare
from servestorm.progress import Display, Step
from servestorm.scrape import open_scraper
from serving.backends import BACKENDS
from serving.deployment import Engine
from serving.engines import ENGINES
from serving.errors import DeploymentError

PREPARE_GUESS_S = 90.0
GIVE_UP_AFTER = 2
"""Cells in a row in which an engine that never worked may fail before the study ends."""


class Study:
    """One study: `carry_out` runs it; `path` is its run directory once the model is there."""

    def __init__(self, plan: Plan, plan_text: str, out: Path, generator: Generator | None = None) -> None:
        self.plan, self.plan_text, self.out = plan, plan_text, out
        self.generator = generator or Generator()
        self.cells = cells_of(plan)
        self.cores: Cores = assign(plan)
        self.engines: Mapping[str, Engine] = {name: ENGINES[name] for name in plan.engines}
        self.path: Path | None = None
        self._study: dict[str, Any] = {}

    def carry_out(self) -> Path:
        """Run every cell; returns the run directory. Raises what stopped it, after everything was written."""
        versions = {name: engine.check() for name, engine in self.engines.items()}
        missing = is_missing(self.plan.model)
        with Display(_steps(self.plan, self.cells, missing)) as display:
            model = self._prepare(display, missing)
            self._open(model, versions)
            try:
                self._run_cells(model, display)
            except KeyboardInterrupt:
                self._close("interrupted", "interrupted by the user")
                raise
            except BaseException as error:
                self._close("failed", str(error))
                raise
        self._close("complete", None)
        assert self.path is not None
        return self.path

    def _prepare(self, display: Display, missing: bool) -> ModelDir:
        """The model, with the artifacts of every engine of the plan intact."""
        if missing:
            with display.step():
                model = prepare(self.plan.model, display.fraction)
        else:
            model = prepare(self.plan.model, lambda _what, _share: None)
        for engine in self.engines.values():
            model.verify("mar" if engine.artifact == "mar" else "savedmodel")
        return model

    def _open(self, model: ModelDir, versions: Mapping[str, str]) -> None:
        path = self.path = store.create_run(self.out, self.plan.name)
        self._study = {
            "schema_version": store.SCHEMA_VERSION,
            "id": path.name,
            "state": "running",
            "reason": None,
            "started_at": store.now(),
            "ended_at": None,
            "plan": self.plan.model_dump(mode="json"),
            "cores": dataclasses.asdict(self.cores),
            "engines": dict(versions),
            "model_path": str(model.path),
            "cells": [cell.id for cell in self.cells],
        }
        store.write_text(path / "plan.yaml", self.plan_text)
        store.write_text(path / "manifest.json", (model.path / MANIFEST_NAME).read_text())
        store.write_json(path / "environment.json", describe(self.plan.seed, self.cores.engine, self.cores.generator))
        store.write_json(path / "study.json", self._study)

    def _close(self, state: store.State, reason: str | None) -> None:
        self._study.update(state=state, reason=reason, ended_at=store.now())
        if self.path:
            store.write_json(self.path / "study.json", self._study)

    def _run_cells(self, model: ModelDir, display: Display) -> None:
        assert self.path is not None
        troubles = _Troubles()
        with ExitStack() as stack:
            # we and what we start stay off the engine's cores; the backend gives each server its own set
            before = os.sched_getaffinity(0)
            stack.callback(os.sched_setaffinity, 0, before)
            os.sched_setaffinity(0, self.cores.generator)
            scraper = stack.enter_context(open_scraper())
            bench = Bench(self.plan, model, self.engines, BACKENDS["process"], self.cores, scraper, self.generator)
            for cell in self.cells:
                with display.step():
                    outcome = run_cell(bench, cell, self.path / "cells" / cell.id)
                if outcome["state"] != "complete":
                    display.tell(f"{cell.id} failed: {outcome['reason']}")
                troubles.saw(cell.engine, outcome)


class _Troubles:
    """Ends a study whose engine never works, instead of failing every cell of it for minutes."""

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}

    def saw(self, engine: str, outcome: Mapping[str, Any]) -> None:
        """Count; raises what the engine's cells failed of once it failed too often without any success."""
        if outcome["state"] == "complete":
            self._failed[engine] = -(10**9)
        self._failed[engine] = self._failed.get(engine, 0) + 1
        if self._failed[engine] >= GIVE_UP_AFTER:
            raise DeploymentError(f"{engine} failed {GIVE_UP_AFTER} times without a success: {outcome['reason']}")


def _steps(plan: Plan, cells: Sequence[Cell], missing: bool) -> list[Step]:
    """The progress bar's steps."""
    first = [Step(f"train and export {plan.model.name}", "prepare", PREPARE_GUESS_S)] if missing else []
    return first + [
        Step(_title(plan, cell), f"{cell.scenario} {cell.engine}", expected_s(plan, cell)) for cell in cells
    ]


def _title(plan: Plan, cell: Cell) -> str:
    runs = {"coldstart": plan.cold_starts, "scaling": plan.scaling.repetitions if plan.scaling else 1}
    count = f"{cell.repetition} of {runs.get(cell.scenario, plan.repetitions)}"
    names = {"coldstart": "cold start", "steady": "steady load", "bursty": "bursty load", "scaling": "scaling"}
    replicas = f", {cell.replicas} replica{'s' if cell.replicas > 1 else ''}" if cell.scenario == "scaling" else ""
    return f"{cell.engine}: {names[cell.scenario]} {count}{replicas}"
