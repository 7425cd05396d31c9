"""A study from plan to run directory. What was measured is kept whatever happens."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from models.manifest import MANIFEST_NAME, ModelDir
from servestorm.plan.cells import Cell, Variant, cells_of, expected_s, variants_of
from servestorm.plan.study_plan import DockerPlan, KubernetesPlan, ModelPlan, Plan
from servestorm.rundir import record
from servestorm.rundir.record import RunRecord
from servestorm.study import resume as resumed
from servestorm.study.cell_run import Bench, autoscaler_of, run_cell
from servestorm.study.cores import Cores, assign
from servestorm.study.environment import describe
from servestorm.study.generator_cluster import ClusterGenerator
from servestorm.study.generator_local import Generator, LocalGenerator
from servestorm.study.model_preparation import is_missing, prepare
from servestorm.study.progress import Display, Step
from servestorm.study.scraper import open_scraper
from serving.backends import BACKENDS, DockerBackend, KubernetesBackend
from serving.backends.docker.leftovers import counted
from serving.backends.docker.project import ProjectBackend
from serving.backends.docker.settings import DockerSettings
from serving.backends.kubernetes.leftovers import counted as counted_releases
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.deployment import Backend, Engine
from serving.engines import ENGINES
from serving.errors import DeploymentError

PREPARE_GUESS_S = 90.0
GIVE_UP_AFTER = 2
"""Cells in a row in which an engine that never worked may fail before the study ends."""


class Study:
    """One study: `carry_out` runs it; `path` is its run directory once the models are there.

    With `resume` it goes on in that run directory: what is complete there is kept, the rest is run. With `keep` it ends
    with the first cell that fails, and leaves its Helm release to be looked at, as its reason says.
    """

    def __init__(
        self,
        plan: Plan,
        plan_text: str,
        out: Path,
        generator: Generator | None = None,
        resume: RunRecord | None = None,
        keep: bool = False,
    ) -> None:
        self.plan, self.plan_text, self.out = plan, plan_text, out
        self.cells = cells_of(plan)
        self.cores: Cores = assign(plan)
        self.engines: Mapping[str, Engine] = {name: ENGINES[name] for name in plan.engines}
        self.keep = keep
        self.backend: Backend = backend_of(plan, self.cores, keep=keep)
        self.generator = generator or generator_of(plan, self.backend)
        self.path: Path | None = None
        self._resume = resume
        self._kept = resumed.complete_cells(resume, self.cells, plan) if resume else set()
        self._study: dict[str, Any] = {}

    def carry_out(self) -> Path:
        """Run every cell; returns the run directory. Raises what stopped it, after everything was written."""
        self._remove_leftovers()
        versions = {name: self._check(engine) for name, engine in self.engines.items()}
        missing = [model for model in self.plan.model if is_missing(model)]
        to_run = [cell for cell in self.cells if cell.id not in self._kept]
        with Display(_steps(self.plan, to_run, missing)) as display:
            models = [self._prepare(model, display) for model in self.plan.model]
            self._open(models, versions)
            try:
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
        if autoscaler and isinstance(self.backend, KubernetesBackend):
            return self.backend.autoscaled(autoscaler).check(engine)
        return self.backend.check(engine)

    def _remove_leftovers(self) -> None:
        """End what an earlier, killed study left on a Docker Engine or in a cluster, as every command does here."""
        removed = _removed(self.backend)
        if removed:
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
            self.path, self._study = resumed.reopen(self._resume, manifests, versions, self.cores)
            return
        path = self.path = record.create_run(self.out, self.plan.name)
        self._study = {
            "schema_version": record.SCHEMA_VERSION,
            "id": path.name,
            "state": "running",
            "reason": None,
            "started_at": record.now(),
            "ended_at": None,
            "resumed_at": [],
            "plan": self.plan.model_dump(mode="json"),
            "variants": [dataclasses.asdict(variant) for variant in variants_of(self.plan)],
            "cores": dataclasses.asdict(self.cores),
            "engines": dict(versions),
            "model_paths": [str(model.path) for model in models],
            "cells": [cell.id for cell in self.cells],
        }
        record.write_text(path / "plan.yaml", self.plan_text)
        for place, manifest in enumerate(manifests):
            record.write_text(path / record.manifest_name(place), manifest)
        if self.plan.prices:
            record.write_text(path / "prices.yaml", self.plan.prices.read_text(encoding="utf-8"))
        environment = describe(self.plan.seed, self.cores.engine, self.cores.generator)
        if self.plan.backend == "docker":
            environment["docker_engine"] = DockerBackend().describe()
        if isinstance(self.backend, KubernetesBackend):
            environment["kubernetes"] = self.backend.describe()
        record.write_json(path / "environment.json", environment)
        record.write_json(path / "study.json", self._study)

    def _close(self, state: record.State, reason: str | None) -> None:
        self._study.update(state=state, reason=reason, ended_at=record.now())
        if self.path:
            record.write_json(self.path / "study.json", self._study)

    def _run_cells(self, models: Sequence[ModelDir], cells: Sequence[Cell], display: Display) -> None:
        assert self.path is not None
        troubles = _Troubles()
        with ExitStack() as stack:
            # we and what we start stay off the engine's cores; the backend gives each server its own set
            before = os.sched_getaffinity(0)
            stack.callback(os.sched_setaffinity, 0, before)
            os.sched_setaffinity(0, self.cores.generator)
            scraper = stack.enter_context(open_scraper())
            variants = variants_of(self.plan)
            bench = Bench(self.plan, variants, models, self.engines, self.backend, self.cores, scraper, self.generator)
            for cell in cells:
                with display.step():
                    outcome = run_cell(bench, cell, self.path / "cells" / cell.id)
                if outcome["state"] != "complete":
                    display.tell(f"{cell.id} failed: {outcome['reason']}")
                    if self.keep:
                        raise DeploymentError(f"--keep ended the study with {cell.id}: {outcome['reason']}")
                troubles.saw(cell.engine, outcome)


def _removed(backend: Backend) -> str:
    """What was removed of the leftovers, counted in words; '' for nothing."""
    if isinstance(backend, DockerBackend) and (left := backend.leftovers()):
        backend.remove(left)
        return counted(left)
    if isinstance(backend, KubernetesBackend) and (stale := backend.leftovers()):
        backend.remove(stale)
        return counted_releases(stale)
    return ""


def backend_of(plan: Plan, cores: Cores, keep: bool = False) -> Backend:
    """Where the plan's engines run. `keep` leaves a release where it failed."""
    if plan.backend == "kubernetes":
        return _kubernetes(plan, plan.kubernetes or KubernetesPlan(), keep)
    if plan.backend == "docker":
        return _docker(plan.docker or DockerPlan(), cores)
    if plan.backend == "attach":
        from serving.backends.attach import Address, AttachBackend

        return AttachBackend(
            {engine: [Address(**place.model_dump()) for place in places] for engine, places in plan.attach.items()}
        )
    return BACKENDS[plan.backend]


def generator_of(plan: Plan, backend: Backend) -> Generator:
    """Where the plan's load comes from."""
    if plan.load_from == "cluster" and isinstance(backend, KubernetesBackend):
        return ClusterGenerator(backend)
    pods_change = plan.backend == "kubernetes" and (plan.kubernetes or KubernetesPlan()).reach == "pods"
    return LocalGenerator(follows=pods_change)


def _kubernetes(plan: Plan, said: KubernetesPlan, keep: bool) -> Backend:
    return KubernetesBackend(
        KubernetesSettings(
            context=said.context,
            namespace=said.namespace,
            images={str(name): reference for name, reference in said.images.items()},
            registry=said.registry,
            model_image=said.model_image,
            values=tuple(said.values),
            reach=said.reach,
            balancer=said.balancer,
            agents=said.agents if plan.load_from == "cluster" else 0,
            keep=keep,
        )
    )


def _docker(said: DockerPlan, cores: Cores) -> Backend:
    settings = DockerSettings(
        images={str(name): reference for name, reference in said.images.items()},
        reach=said.reach,
        balancer=said.balancer,
        balancer_cpus=cores.generator,
        bake=said.bake,
    )
    return ProjectBackend(said.project, settings) if said.project else DockerBackend(settings)


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


def _steps(plan: Plan, cells: Sequence[Cell], missing: Sequence[ModelPlan]) -> list[Step]:
    """The progress bar's steps."""
    first = [Step(f"train and export {model.name}", "prepare", PREPARE_GUESS_S) for model in missing]
    variants = variants_of(plan)
    return first + [
        Step(title(plan, variants, cell), f"{cell.scenario} {cell.engine}", expected_s(plan, cell)) for cell in cells
    ]


def title(plan: Plan, variants: Sequence[Variant], cell: Cell) -> str:
    """What a cell is, in words: 'TorchServe: steady load 2 of 5 (gRPC)'."""
    runs = {
        "coldstart": plan.cold_starts,
        "scaling": (plan.scaling.repetitions if plan.scaling else None) or plan.repetitions,
        "sweep": plan.sweep.repetitions if plan.sweep else 1,
        "autoscaling": (plan.autoscaling.repetitions if plan.autoscaling else None) or plan.repetitions,
    }
    names = {"coldstart": "cold start", "steady": "steady load", "bursty": "bursty load"}
    text = f"{cell.engine}: {names.get(cell.scenario, cell.scenario)} {cell.repetition} of "
    text += str(runs.get(cell.scenario, plan.repetitions))
    if cell.scenario == "sweep":
        wait = f", {cell.timeout_us} us" if cell.max_batch_size > 1 else ""
        text += f", {cell.threads} threads, batches of {cell.max_batch_size}{wait}"
    if cell.scenario in ("scaling", "sweep"):
        text += f", {cell.replicas} replica{'s' if cell.replicas > 1 else ''}"
    aside = [variants[cell.variant].label, "cold page cache" if cell.page_cache == "cold" else ""]
    told = "; ".join(filter(None, aside))
    return f"{text} ({told})" if told else text
