"""What a study would refuse later, told before anything starts; `--dry-run` refuses the same.

Whether engines, a Docker Engine or a cluster are there is not asked: that is the run's own first step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

from loadtests.arrivals.processes import constant, on_off
from loadtests.errors import LoadTestError
from models.errors import ModelError
from models.manifest import ModelDir
from servestorm.errors import StudyError
from servestorm.plan.scenarios import Autoscaling, Bursty
from servestorm.plan.study_plan import Plan
from servestorm.study.backend_choice import choose_backend
from servestorm.study.cores import assign
from servestorm.study.model_preparation import is_missing, named_model, refuse_unknown
from servestorm.study.payloads import refuse_payloads
from servestorm.study.trainings.refusals import refuse_trainings
from serving.engines import ENGINES
from serving.wire import WIRES

MIB: Final = 2**20
SERVER_MIB: Final = 200
"""No server here takes less, whatever it serves."""


def refuse_early(plan: Plan) -> None:
    """Raise StudyError, ModelError or ServingError for cores, files and models with which the plan cannot be run.

    A model that must be made first is not judged.
    """
    if plan.training:
        refuse_trainings(plan.training)
        return
    backend = choose_backend(plan, assign(plan)).backend
    if plan.backend == "attach":  # which looks at nothing but the values of headers
        for name in plan.engines:
            backend.check(ENGINES[name])
    _refuse_loads(plan)
    for path in plan.kubernetes.values if plan.kubernetes else ():
        if not path.is_file():
            raise StudyError(f"kubernetes.values: {path} is not a file: give values files of the chart.")
    for planned in plan.model:
        refuse_unknown(planned)
        if is_missing(planned):
            if planned.dataset == "folder" and not (planned.data_dir and planned.data_dir.is_dir()):
                raise StudyError("model.data_dir: the data set folder needs a directory with one directory per class.")
            continue
        model = named_model(planned)
        for name in plan.engines:
            _refuse_artifact(plan, name, model)
            _refuse_memory(plan, name, model)
            refuse_payloads(plan, WIRES[name], model)
        if not model.manifest.golden:
            raise ModelError(f"{model.path} has no golden images to ask for: export or import it with images.")
        model.golden_images()


def _refuse_loads(plan: Plan) -> None:
    """Raise StudyError, which names the key, for a load that the generator would refuse: one of too many arrivals."""
    loads: list[tuple[str, Callable[[], object]]] = []
    if (steady := plan.steady) is not None:
        loads.append(("steady", lambda: constant(steady.rate_per_s, steady.duration_s)))
    for key, bursts in (("bursty", plan.bursty), ("autoscaling", plan.autoscaling)):
        if bursts is not None:
            loads.append((key, partial(_arrivals_of_bursts, bursts)))
    if (capacity := plan.capacity) is not None and (rate_per_s := capacity.start_rate_per_s) is not None:
        loads.append(("capacity", lambda: constant(rate_per_s, capacity.probe_s)))
    for key, make in loads:
        try:
            make()
        except LoadTestError as error:
            raise StudyError(f"{key}: {error}") from error


def _arrivals_of_bursts(bursts: Bursty | Autoscaling) -> object:
    return on_off(bursts.base_rate, bursts.peak_rate, bursts.on_s, bursts.off_s, bursts.duration_s, seed=0)


def _refuse_memory(plan: Plan, engine: str, model: ModelDir) -> None:
    """Raise StudyError where a replica's limit is less than its artifact and the little that any server takes."""
    limit_mib = plan.replica_limits.memory_mib
    artifact = model.manifest.mar if ENGINES[engine].artifact == "mar" else model.manifest.savedmodel
    if limit_mib is None or artifact is None or plan.runs_already:
        return
    if artifact.size_bytes / MIB + SERVER_MIB > limit_mib:
        raise StudyError(
            f"limits.memory_mib: a replica may use {limit_mib:,} MiB, and {model.name} alone has "
            f"{artifact.size_bytes / MIB:,.0f} MiB of weights for {engine}: give about "
            f"{math.ceil((3 * artifact.size_bytes / MIB + 1024) / 256) * 256:,}."
        )


def _refuse_artifact(plan: Plan, engine: str, model: ModelDir) -> None:
    if not plan.runs_already:
        model.verify("mar" if ENGINES[engine].artifact == "mar" else "savedmodel")
