"""From a plan to its cells: pure, so that the same plan and seed always give the same study."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, get_args

from servestorm.plan.scenarios import Scaling
from servestorm.plan.study_plan import BatchingPlan, Plan
from servestorm.plan.training import settings_of

Scenario = Literal["coldstart", "steady", "bursty", "capacity", "scaling", "sweep", "autoscaling", "training"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
TAKE_TURNS: tuple[Scenario, ...] = ("steady", "bursty", "capacity", "training")
"""The scenarios whose engines stand up at once, where the plan is interleaved; frameworks take turns by epochs."""
SHARE_SERVERS: tuple[Scenario, ...] = ("steady", "bursty")
"""The scenarios that one start of the engines bears, in this order: a start costs as much time as a load."""


@dataclass(frozen=True)
class Variant:
    """One combination of what a plan gives several values of."""

    index: int
    model: int
    """Index into the plan's models."""
    protocol: str
    payload: str
    images_per_request: int
    threads: int
    max_batch_size: int
    timeout_us: int
    label: str
    """What tells it from the other variants, such as 'gRPC, 8 images'; '' where it is the only one."""
    server_label: str
    """The part of it that tells the servers apart: model, threads, batching."""

    @property
    def deployment(self) -> tuple[int, int, int, int]:
        """What of it changes the server rather than the requests."""
        return (self.model, self.threads, self.max_batch_size, self.timeout_us)


def variants_of(plan: Plan) -> list[Variant]:
    """Every combination, in the order of the plan's lists."""
    axes = (
        list(range(len(plan.model))),
        plan.protocol,
        plan.payload,
        plan.images_per_request,
        plan.threads,
        plan.batching,
    )
    varied = [len(values) > 1 for values in axes]
    of_server = [True, False, False, False, True, True]
    variants = []
    for index, (model, protocol, payload, images, threads, batching) in enumerate(itertools.product(*axes)):
        labels = _labels(plan, model, protocol, payload, images, threads, batching)
        label = ", ".join(itertools.compress(labels, varied))
        servers = ", ".join(itertools.compress(labels, map(operator.and_, varied, of_server)))
        settings = (threads, batching.max_batch_size, batching.timeout_us)
        variants.append(Variant(index, model, protocol, payload, images, *settings, label, servers))
    return variants


def _labels(
    plan: Plan, model: int, protocol: str, payload: str, images: int, threads: int, batching: BatchingPlan
) -> list[str]:
    """Each of a variant's values in words."""
    return [
        plan.model[model].name,
        {"rest": "REST", "grpc": "gRPC"}[protocol],
        payload,
        f"{images} image{'s' if images > 1 else ''}",
        f"{threads} thread{'s' if threads > 1 else ''}",
        batching_label(batching),
    ]


def batching_label(batching: BatchingPlan) -> str:
    """'no batching', or 'batches of 8, 1000 us'."""
    if batching.max_batch_size == 1:
        return "no batching"
    return f"batches of {batching.max_batch_size}, {batching.timeout_us} µs"


@dataclass(frozen=True)
class Cell:
    """One run: one deployment under one scenario, once."""

    index: int
    """Place in the study, from 0."""
    scenario: Scenario
    engine: str
    replicas: int
    repetition: int
    """From 1."""
    seed: int
    """Of the arrivals: the same for every engine of a repetition, so that all see the same schedule."""
    variant: int = 0
    """Index into `variants_of(plan)`."""
    page_cache: str = "warm"
    """Of a cold start: warm or cold."""
    server_warmup: bool = True
    """Of a cold start: whether the server answers its artifact's warm-up requests before it is ready."""
    threads: int = 1
    max_batch_size: int = 1
    timeout_us: int = 1000
    training: int | None = None
    """Of a training: index into `settings_of(plan.training)`."""

    @property
    def id(self) -> str:
        """Name of its folder in the run directory."""
        replicas = f"-x{self.replicas}" if self.scenario in ("scaling", "sweep") else ""
        variant = f"-v{self.variant}" if self.variant else ""
        cold = ("-cold" if self.page_cache == "cold" else "") + ("" if self.server_warmup else "-nowarmup")
        setting = f"-t{self.threads}-b{self.max_batch_size}-{self.timeout_us}us" if self.scenario == "sweep" else ""
        setting += f"-s{self.training}" if self.training else ""
        return f"{self.index:03d}-{self.scenario}-{self.engine}{replicas}{setting}{variant}{cold}-{self.repetition}"

    def as_dict(self) -> dict[str, str | int | bool]:
        """For cell.json."""
        return {"id": self.id, **asdict(self)}


class ScalingPlan(Protocol):
    """A plan, as a person wrote it or as study.json holds it."""

    @property
    def scaling(self) -> Scaling | None:
        """How replica counts are compared; None where they are not."""


@dataclass(frozen=True)
class _Entry:
    """A cell that has no place yet."""

    scenario: Scenario
    engine: str
    replicas: int
    variant: Variant
    page_cache: str = "warm"
    server_warmup: bool = True
    setting: tuple[int, int, int] | None = None
    """Threads, largest batch and its wait, where they are not the variant's."""
    training: int | None = None


def cells_of(plan: Plan) -> list[Cell]:
    """Every run of the plan, in order: scenario by scenario, engines interleaved in seeded random order.

    A block is one repetition of everything that belongs together, shuffled, before the next repetition, so that a
    drift of the machine hits every engine and every variant alike.
    """
    order = random.Random(plan.seed)
    cells: list[Cell] = []
    for repetition, block in _blocks(plan):
        entries = list(block)
        order.shuffle(entries)
        if plan.interleaved:
            entries = _rounds_together(entries)
        cells += [_placed(entry, len(cells) + place, repetition, plan) for place, entry in enumerate(entries)]
    return cells


def _rounds_together(entries: Sequence[_Entry]) -> list[_Entry]:
    """The entries with those of a round as neighbours, load by load; rounds, and engines of a load, keep order."""
    rounds: dict[object, list[_Entry]] = {}
    for place, entry in enumerate(entries):
        of_round = (_of_round(entry.scenario), entry.variant.index, entry.training)
        key = of_round if entry.scenario in TAKE_TURNS else place
        rounds.setdefault(key, []).append(entry)
    return [entry for together in rounds.values() for entry in sorted(together, key=_place_in_round)]


def _place_in_round(entry: _Entry) -> int:
    return SCENARIOS.index(entry.scenario)


def _of_round(scenario: Scenario) -> Scenario:
    """One name for the scenarios that share a round."""
    return SHARE_SERVERS[0] if scenario in SHARE_SERVERS else scenario


def rounds_of(plan: Plan, cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in the order in which they run: those of a list are measured on one start of the engines.

    The engines stand up at once and take turns under the first load, then under the next: see `loads_of`. A cell that
    takes no turns is a round of its own. With a budget those come first: what is repeated has all the time that they
    leave.
    """
    rounds: dict[object, list[Cell]] = {}
    for cell in cells:
        together = plan.interleaved and cell.scenario in TAKE_TURNS
        of_round = (_of_round(cell.scenario), cell.variant, cell.training, cell.repetition)
        key = of_round if together else cell.index
        rounds.setdefault(key, []).append(cell)
    return sorted(rounds.values(), key=lambda cells: plan.budget is not None and cells[0].scenario in TAKE_TURNS)


def loads_of(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of a round by scenario, in the order in which its loads come: one cell for each engine."""
    return [list(of_load) for _, of_load in itertools.groupby(cells, key=operator.attrgetter("scenario"))]


def _placed(entry: _Entry, index: int, repetition: int, plan: Plan) -> Cell:
    variant = entry.variant
    threads, max_batch_size, timeout_us = entry.setting or variant.deployment[1:]
    return Cell(
        index,
        entry.scenario,
        entry.engine,
        _running(plan, entry.engine) or entry.replicas,
        repetition,
        plan.seed * 1000 + repetition,
        variant.index,
        entry.page_cache,
        entry.server_warmup,
        threads,
        max_batch_size,
        timeout_us,
        entry.training,
    )


def _running(plan: Plan, engine: str) -> int:
    """Replicas of an engine that run already; 0 where the study starts them itself."""
    if not plan.runs_already:
        return 0
    if plan.docker and plan.docker.project:
        return plan.docker.replicas
    return len({str(name): places for name, places in plan.attach.items()}[engine])


def _blocks(plan: Plan) -> Iterable[tuple[int, list[_Entry]]]:
    """(repetition, its entries), in the study's order."""
    for group in (_cold_starts, _loads, _scaling, _sweep, _autoscaling, _trainings):
        repetitions, entries = group(plan)
        for repetition in range(1, repetitions + 1):
            yield repetition, list(entries)


_Group = tuple[int, list[_Entry]]
"""How often, and what belongs together in each repetition."""


def _cold_starts(plan: Plan) -> _Group:
    variants = variants_of(plan)
    servers = list({variant.deployment: variant for variant in reversed(variants)}.values())[::-1]
    conditions = itertools.product(plan.engines, servers, plan.page_cache, plan.server_warmup)
    return cold_starts(plan), [_Entry("coldstart", e, 1, v, cache, warmup) for e, v, cache, warmup in conditions]


def _loads(plan: Plan) -> _Group:
    """Loads of one replica, together: steady and bursty load, and the search for the largest rate."""
    loads: list[Scenario] = [name for name in ("steady", "bursty", "capacity") if getattr(plan, name)]
    entries = [_Entry(load, e, 1, v) for load in loads for e in plan.engines for v in variants_of(plan)]
    return plan.most_repetitions if loads else 0, entries


def _scaling(plan: Plan) -> _Group:
    if plan.scaling is None:
        return 0, []
    every = itertools.product(plan.scaling.replicas, plan.engines, variants_of(plan))
    return plan.scaling.repetitions or plan.repetitions, [_Entry("scaling", e, n, v) for n, e, v in every]


def _sweep(plan: Plan) -> _Group:
    sweep = plan.sweep
    if sweep is None:
        return 0, []
    every = itertools.product(plan.engines, sweep.workers, sweep.threads, sweep.max_batch_size, sweep.timeout_us)
    variant = variants_of(plan)[0]
    entries = [
        # without batching there is no wait: one deployment, not one for each wait
        _Entry("sweep", engine, workers, variant, setting=(threads, batch, wait_us if batch > 1 else 0))
        for engine, workers, threads, batch, wait_us in every
    ]
    return sweep.repetitions, list(dict.fromkeys(entries))


def _autoscaling(plan: Plan) -> _Group:
    if plan.autoscaling is None:
        return 0, []
    fewest = plan.autoscaling.min_replicas
    entries = [_Entry("autoscaling", e, fewest, v) for e in plan.engines for v in variants_of(plan)]
    return plan.autoscaling.repetitions or plan.repetitions, entries


def _trainings(plan: Plan) -> _Group:
    if plan.training is None:
        return 0, []
    variant = variants_of(plan)[0]
    every = itertools.product(range(len(settings_of(plan.training))), plan.engines)
    return plan.repetitions, [_Entry("training", framework, 1, variant, training=number) for number, framework in every]


def cold_starts(plan: Plan) -> int:
    """Cold starts of each engine: none of an endpoint that runs already."""
    return 0 if plan.runs_already else plan.cold_starts


def by_capacity(plan: ScalingPlan, cell: Cell) -> bool:
    """Whether the cell is a search for the largest rate."""
    scaling = cell.scenario == "scaling" and plan.scaling and plan.scaling.measure == "capacity"
    return cell.scenario == "capacity" or bool(scaling)
