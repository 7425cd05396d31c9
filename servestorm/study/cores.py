"""Which cores the engine and the load generator get, and what that means for the numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from servestorm.errors import StudyError
from servestorm.plan.study_plan import Cpus, Plan


@dataclass(frozen=True)
class Cores:
    """The CPU sets of a study; `notes` says what results on them cannot show."""

    engine: tuple[int, ...]
    generator: tuple[int, ...]
    notes: tuple[str, ...]


def assign(plan: Plan, available: set[int] | None = None) -> Cores:
    """The plan's CPU sets, or the automatic ones: the last core to the generator, what the replicas want to the engine.

    Raises StudyError where the plan names a core that this process may not use.
    """
    free = sorted(os.sched_getaffinity(0) if available is None else available)
    if plan.backend == "kubernetes":
        chosen = plan.cpus.generator if isinstance(plan.cpus, Cpus) else free[-4:]
        return Cores((), _usable(chosen, free), _notes_of_pods(plan))
    if isinstance(plan.cpus, Cpus):
        engine, generator = _usable(plan.cpus.engine, free), _usable(plan.cpus.generator, free)
    elif len(free) == 1:
        engine = generator = (free[0],)
    else:
        engine = tuple(free[: min(len(free) - 1, _wanted(plan))])
        generator = tuple(free[len(engine) :])[-4:]  # a generator never fills more than a few cores
    return Cores(engine, generator, _notes(plan, engine, generator, len(free)))


def _usable(named: Iterable[int], free: list[int]) -> tuple[int, ...]:
    """The cores, each once; raises StudyError where one may not be used."""
    cores = tuple(sorted(set(named)))
    if missing := [core for core in cores if core not in free]:
        raise StudyError(
            f"cpus names core {missing[0]}, which this process may not use; usable: {', '.join(map(str, free))}."
        )
    return cores


def _notes_of_pods(plan: Plan) -> tuple[str, ...]:
    cpus, _ = plan.replica_limits
    return (f"Each replica may use {cpus:g} CPU of its node on average, which the kernel enforces.",)


def _most_replicas(plan: Plan) -> int:
    scaled = plan.scaling.replicas if plan.scaling else []
    return max([1, *scaled, *(plan.sweep.workers if plan.sweep else [])])


def _most_threads(plan: Plan) -> int:
    return max([*plan.threads, *(plan.sweep.threads if plan.sweep else [])])


def _quota(plan: Plan) -> float | None:
    """CPUs that a replica may use at most; None without a limit."""
    return plan.limits.cpus if plan.limits else None


def _wanted(plan: Plan) -> int:
    each = min(_quota(plan) or math.inf, _most_threads(plan))
    return math.ceil(_most_replicas(plan) * each)


def _notes(plan: Plan, engine: tuple[int, ...], generator: tuple[int, ...], cores: int) -> tuple[str, ...]:
    notes = []
    have = f"This machine gives us {cores} core{'s' if cores != 1 else ''}"
    if shared := set(engine) & set(generator):
        notes.append(
            f"{have}: the engine and the load generator share {_named(tuple(sorted(shared)))}, so they slow each other "
            "and latencies are pessimistic."
        )
    if quota := _quota(plan):
        notes.append(f"Each replica may use {quota:g} CPU of {_named(engine)} on average, which the kernel enforces.")
    if len(engine) < _wanted(plan):
        most = _most_replicas(plan)
        if most > 1:
            notes.append(
                f"{have}: {most} replicas share {_named(engine)}, so the scaling factor shows what replicas gain on "
                "the same cores, not what more machines would give."
            )
        else:
            notes.append(f"{have}: {_most_threads(plan)} threads a replica share {_named(engine)}.")
    return tuple(notes)


def _named(cores: tuple[int, ...]) -> str:
    return f"core {cores[0]}" if len(cores) == 1 else f"cores {', '.join(map(str, cores))}"


@contextmanager
def pinned(cores: tuple[int, ...]) -> Iterator[None]:
    """Run the calling thread, and what it starts meanwhile, on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
