"""Reasons to doubt a run: what else the machine did while it was measured, and what the numbers cannot show.

`doubts` turns what `servestorm.study.machine_counters` saw, and what the run directory holds besides, into sentences. A
doubt makes no run INVALID: that is the generator's judgement of itself. It says how far a reader may trust the numbers.
From the shares on that make a doubt about the machine grave, a run is DISTURBED (servestorm.methods.disturbance),
unless its plan sets other limits. Where that is judged slice by slice, only a run that is DISTURBED as a whole is in
grave doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loadtests.samples.validity import MAX_CPU_SHARE
from servestorm.analysis.doubt_facts import RunFacts
from servestorm.analysis.machine_doubts import (
    SEVERITIES,
    Found,
    Severity,
    clock_doubts,
    machine_doubts,
    turn_doubts,
)
from servestorm.methods.disturbance import REMEDIES, SWAPPED_PERCENT

THROTTLED_SHARE = 0.01
UNEVEN = 1.10
NEAR_SATURATION = 0.6


@dataclass(frozen=True)
class Doubt:
    """One reason, over all runs in which it was found."""

    severity: Severity
    kind: str
    sentence: str
    runs: list[str] = field(default_factory=list)
    """Their ids; empty where it is about the whole study."""


def doubts(runs: Iterable[RunFacts]) -> list[Doubt]:
    """Every reason to doubt these runs, the gravest first, one for each kind: as grave as its worst run.

    Facts with the same id are of loads of one run, which counts once, by its worst load.
    """
    runs = list(runs)
    by_kind: dict[str, dict[str, _Case]] = {}
    gravest: dict[str, Severity] = {}
    for run in runs:
        for severity, kind, size, sentence in _of_run(run):
            cases, case = by_kind.setdefault(kind, {}), _Case(run.id, run.load, size, sentence)
            cases[run.id] = max(cases.get(run.id, case), case, key=lambda case: case.size)
            gravest[kind] = min(gravest.get(kind, severity), severity, key=SEVERITIES.index)
    number = len({run.id for run in runs})
    merged = [
        Doubt(gravest[kind], kind, _merged(list(cases.values()), number), list(cases))
        for kind, cases in by_kind.items()
    ]
    return sorted(merged, key=lambda doubt: SEVERITIES.index(doubt.severity))


@dataclass(frozen=True)
class _Case:
    """A run in which a reason was found, with the load in which it was worst."""

    run: str
    load: str
    size: float
    sentence: str


def _merged(cases: Sequence[_Case], runs: int) -> str:
    """The sentence of the worst case, with how many runs are like it."""
    worst = max(cases, key=lambda case: case.size)
    if len(cases) > 1:
        return f"{worst.sentence} (the worst of {len(cases)} such runs of {runs})"
    place = [*([f"run {worst.run}"] if runs > 1 else []), *([worst.load] if worst.load else [])]
    return f"{worst.sentence} ({', '.join(place)})" if place else worst.sentence


def _of_run(run: RunFacts) -> Iterable[Found]:
    yield from _cpu_budget(run)
    yield from _memory(run)
    if not run.overload:
        yield from _generator(run)
    yield from _answers(run)
    yield from turn_doubts(run)
    yield from machine_doubts(run)
    yield from clock_doubts(run.use.watch)


def _cpu_budget(run: RunFacts) -> Iterable[Found]:
    cores, wanted = len(run.engine_cores), run.replicas * run.threads
    if shared := sorted(set(run.engine_cores) & set(run.generator_cores)):
        yield (
            "doubt",
            "shared_with_generator",
            1,
            (
                f"The servers and the load generator shared core {shared[0]}: give the generator cores of its own, "
                "or read the latencies as pessimistic."
            ),
        )
    if cores and run.replicas * min(run.quota_cpus or 1, 1) > cores:
        yield (
            "doubt",
            "shared_cores",
            run.replicas / cores,
            (
                f"{run.replicas} replicas shared {_cores_text(cores)}: scaling shows what replicas gain on the same "
                "cores, not what more machines would give."
            ),
        )
    elif cores and wanted > cores and run.quota_cpus is None:
        yield (
            "doubt",
            "threads_over_budget",
            wanted / cores,
            (
                f"{run.replicas} x {run.threads} compute threads had {_cores_text(cores)}: they wait for each other; "
                "ask for fewer threads or give more cores."
            ),
        )
    throttled_s, elapsed_s = _throttled_s(run), _elapsed_s(run)
    if throttled_s and elapsed_s:
        share = throttled_s / elapsed_s
        severity: Severity = "doubt" if share >= THROTTLED_SHARE and run.quota_cpus is None else "note"
        held = f"for {throttled_s:.2f} s of {elapsed_s:.1f} s (CFS throttling)"
        said = (
            f"A CPU quota held the servers back {held}: raise the quota to the cores that the budget names."
            if run.quota_cpus is None
            else f"The plan's limit of {run.quota_cpus:g} CPU held a replica back {held} on average: the figures are "
            "those of that limit, not of the cores."
        )
        yield severity, "throttled", share, said
    if run.busiest_over_mean is not None and run.busiest_over_mean > UNEVEN:
        yield (
            "doubt",
            "uneven_balancing",
            run.busiest_over_mean,
            (
                f"The busiest of {run.replicas} replicas got {100 * (run.busiest_over_mean - 1):.0f} % more requests "
                f"than an average one: {_dealer(run)}they are not equally fast."
            ),
        )


def _dealer(run: RunFacts) -> str:
    """What may have dealt unevenly, where it was not the generator."""
    if run.by_service:
        return "the Service dealt unevenly (of itself it deals out connections, not requests), or "
    return "the balancer dealt unevenly, or " if run.balanced else ""


def _cores_text(cores: int) -> str:
    return f"{cores} core{'s' if cores != 1 else ''}"


def _throttled_s(run: RunFacts) -> float | None:
    """Of the servers' own control group, or of ours where they have none of their own."""
    before_s, after_s = run.use.ready.throttled_s, run.use.end.throttled_s
    if before_s is not None and after_s is not None:
        return after_s - before_s
    return run.use.watch.throttled_s


def _elapsed_s(run: RunFacts) -> float | None:
    return run.use.watch.elapsed_s or run.use.load_s


def _memory(run: RunFacts) -> Iterable[Found]:
    swapped_bytes = run.use.end.swap_bytes or 0
    if swapped_bytes:
        percent = run.use.machine_shares.swapped_percent or 0.0
        yield (
            "grave" if percent > SWAPPED_PERCENT else "doubt",
            "servers_swapped",
            swapped_bytes,
            (
                f"{swapped_bytes / 2**20:,.0f} MiB of the servers lay in swap at the end: latencies hold the disk's; "
                f"{REMEDIES['servers_swapped']}."
            ),
        )
    pages = run.use.watch.swapped_pages or 0
    if pages and not swapped_bytes:
        yield (
            "doubt",
            "swap",
            pages,
            (f"The machine swapped {pages:,} pages during the load: free memory or switch swap off."),
        )


def _generator(run: RunFacts) -> Iterable[Found]:
    share = run.generator_cpu_share
    if share is not None and share > NEAR_SATURATION:
        severity: Severity = "grave" if share > MAX_CPU_SHARE else "note"
        yield (
            severity,
            "generator_saturation",
            share,
            (
                f"The load generator's busiest process used {100 * share:.0f} % of a core: part of the latency may "
                "be its own; give it more cores or lower the rate."
            ),
        )
    if run.repeats:
        yield (
            "note",
            "generator_repeats",
            run.repeats,
            (
                f"A load had to be offered {run.repeats + 1} times, because the generator had been late or the machine "
                "disturbed: the machine was not quiet."
            ),
        )


def _answers(run: RunFacts) -> Iterable[Found]:
    if run.unchecked:
        yield (
            "doubt",
            "unchecked_answers",
            1,
            (
                "The right answers of the artifact are not known, so any well-formed answer counted (answers: "
                "unchecked): `servestorm import` says why they are not."
            ),
        )
