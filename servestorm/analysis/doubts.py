"""Reasons to doubt a run: what else the machine did while it was measured, and what the numbers cannot show.

`doubts` turns what `servestorm.study.machine_counters` saw, and what the run directory holds besides, into sentences. A
doubt makes no run INVALID: that is the generator's judgement of itself. It says how far a reader may trust the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from loadtests.samples.summary import MAX_CPU_SHARE
from servestorm.analysis.balance import balance, counted_balance
from servestorm.rundir.record import CellRecord, read_json
from servestorm.rundir.shapes import checked

Severity = Literal["grave", "doubt", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("grave", "doubt", "note")
"""grave: the numbers are probably wrong; doubt: they may be; note: a reader should know."""

GOOD_CLOCKS: Final = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "hyperv_clocksource_msr")
"""Sources that a program reads without asking the kernel, or nearly so: any other costs microseconds a reading."""
OTHER_SHARE, GRAVE_OTHER_SHARE = 0.03, 0.15
STEAL_SHARE, GRAVE_STEAL_SHARE = 0.01, 0.05
THROTTLED_SHARE = 0.01
DRIFT_MS = 20.0
UNEVEN = 1.10
SERVICE_READY = "service_ready"
"""Event of a deployment whose load goes to a Service."""
NEAR_SATURATION = 0.6
_LOAD_FOLDER: Final = re.compile(r"(probe|load)-(\d+)")
"""Of one probe of a search for the largest rate, and of one load of a sweep."""


@dataclass(frozen=True)
class Doubt:
    """One reason, over all runs in which it was found."""

    severity: Severity
    kind: str
    sentence: str
    runs: list[str] = field(default_factory=list)
    """Their ids; empty where it is about the whole study."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of one run under load besides its latencies."""

    id: str
    replicas: int
    threads: int
    """Intra-op threads of one replica."""
    engine_cores: Sequence[int]
    generator_cores: Sequence[int]
    use: Mapping[str, Any]
    """use.json: `ready`, `end` and `watch`, each of which may be missing."""
    summary: Mapping[str, Any]
    """summary.json, or empty."""
    busiest_over_mean: float | None = None
    """Requests of the busiest replica over those of an average one."""
    repeats: int = 0
    """Tries of the load that were thrown away because the generator had been late."""
    quota_cpus: float | None = None
    """CPUs that the plan lets one replica use."""
    balanced: bool = False
    """Whether something stood in front of the replicas, so that the samples do not tell them apart."""
    by_service: bool = False
    """Whether that was a Service of a cluster alone."""
    load: str = ""
    """Which of the run's loads, such as probe-03; empty where it had one."""
    overload: bool = False
    """A probe that did not pass: how the generator fared under it says nothing about the numbers."""


def facts_of(
    record: CellRecord,
    threads: int,
    engine_cores: Sequence[int],
    generator_cores: Sequence[int],
    quota_cpus: float | None = None,
    loaded_from_here: bool = True,
    haproxy: bool = False,
    load: str = "",
    overload: bool = False,
) -> RunFacts:
    """The facts in a folder of a load. Where load came from elsewhere, what this machine did is no fact of the run.

    `haproxy`: whether the plan asks for one in front of the replicas. `load` and `overload` as in RunFacts: one load of
    several tells no balance, for it may be of few requests, or of more than the replicas can take.
    """
    replicas = int(record.cell["replicas"])
    return RunFacts(
        id=record.cell["id"],
        replicas=replicas,
        threads=threads,
        engine_cores=engine_cores,
        generator_cores=generator_cores,
        use={key: told for key, told in (record.use or {}).items() if loaded_from_here or key != "watch"},
        summary=record.summary or {},
        busiest_over_mean=None if load else busiest_over_mean(record),
        repeats=record.repeats,
        quota_cpus=quota_cpus,
        balanced=is_balanced(record),
        by_service=not haproxy and any(event["name"] == SERVICE_READY for event in record.events),
        load=load,
        overload=overload,
    )


def facts_of_loads(record: CellRecord, **told: Any) -> list[RunFacts]:
    """The facts of every load of a cell that was watched: its own, a search's probes or a sweep's loads.

    `told` is what `facts_of` asks for besides. Raises StudyError for a broken file.
    """
    found = [(record, "", False)]
    probes = (record.capacity or {}).get("probes", [])
    passed = {number for number, probe in enumerate(probes, 1) if probe["verdict"] == "pass"}
    for folder in sorted(record.path.iterdir()):
        if place := _LOAD_FOLDER.fullmatch(folder.name):
            overload = place[1] == "probe" and int(place[2]) not in passed
            found.append((_of_folder(record, folder), folder.name, overload))
    watched = [load for load in found if load[0].use and "end" in load[0].use]
    return [facts_of(one, load=load, overload=overload, **told) for one, load, overload in watched]


def _of_folder(record: CellRecord, folder: Path) -> CellRecord:
    """The record of a cell with the files of one of its loads."""
    use, summary = (
        checked(path, read_json(path), shape) if (path := folder / f"{shape}.json").is_file() else None
        for shape in ("use", "summary")
    )
    return replace(record, path=folder, use=use, summary=summary)


def is_balanced(record: CellRecord) -> bool:
    """Whether the load of a cell went through a balancer, or a Service."""
    return any(event["name"] in ("balancer_ready", SERVICE_READY) for event in record.events)


def busiest_over_mean(record: CellRecord) -> float | None:
    """Requests of the busiest replica over those of an average one; None for one replica, or where nothing tells.

    Nothing does under an autoscaler, whose replicas come and go.
    From the samples that were sent; where a balancer stood between, from the replicas' own counters.
    """
    replicas = int(record.cell["replicas"])
    if replicas < 2 or record.samples_path is None or record.cell["scenario"] == "autoscaling":
        return None
    if is_balanced(record):
        return counted_balance(record, replicas).largest_over_mean
    return _dealt(record.samples_path, replicas)


def _dealt(samples: Path, replicas: int) -> float | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(samples, columns=["endpoint", "sent_ns"])
    except (OSError, pa.ArrowException):
        return None  # whoever reads the latencies says so
    sent = table.filter(table["sent_ns"].is_valid())
    return balance(sent["endpoint"].to_numpy(), replicas).largest_over_mean


def doubts(runs: Iterable[RunFacts]) -> list[Doubt]:
    """Every reason to doubt these runs, the gravest first, one for each kind: as grave as its worst run.

    Facts with the same id are of loads of one run, which counts once, by its worst load.
    """
    runs = list(runs)
    found: dict[str, dict[str, _Case]] = {}
    gravest: dict[str, Severity] = {}
    for run in runs:
        for severity, kind, size, sentence in _of_run(run):
            cases, case = found.setdefault(kind, {}), _Case(run.id, run.load, size, sentence)
            cases[run.id] = max(cases.get(run.id, case), case, key=lambda case: case.size)
            gravest[kind] = min(gravest.get(kind, severity), severity, key=SEVERITIES.index)
    number = len({run.id for run in runs})
    merged = [
        Doubt(gravest[kind], kind, _merged(list(cases.values()), number), list(cases)) for kind, cases in found.items()
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


Found = tuple[Severity, str, float, str]
"""Severity, kind, how bad (to find the worst run) and the sentence."""


def _of_run(run: RunFacts) -> Iterable[Found]:
    yield from _cpu_budget(run)
    yield from _memory(run)
    if not run.overload:
        yield from _generator(run)
    if watch := run.use.get("watch"):
        yield from _machine(watch)
        yield from _clock(watch)


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
    ready, end, watch = (run.use.get(key) or {} for key in ("ready", "end", "watch"))
    if ready.get("throttled_s") is not None and end.get("throttled_s") is not None:
        return float(end["throttled_s"] - ready["throttled_s"])
    own = watch.get("throttled_s")
    return None if own is None else float(own)


def _elapsed_s(run: RunFacts) -> float | None:
    ready, end, watch = (run.use.get(key) or {} for key in ("ready", "end", "watch"))
    if watch.get("elapsed_s"):
        return float(watch["elapsed_s"])
    return (end["t_ns"] - ready["t_ns"]) / 1e9 if "t_ns" in ready and "t_ns" in end else None


def _memory(run: RunFacts) -> Iterable[Found]:
    swapped_bytes = (run.use.get("end") or {}).get("swap_bytes") or 0
    if swapped_bytes:
        yield (
            "grave",
            "servers_swapped",
            swapped_bytes,
            (
                f"{swapped_bytes / 2**20:,.0f} MiB of the servers lay in swap at the end: latencies hold the disk's; "
                "free memory or switch swap off."
            ),
        )
    pages = (run.use.get("watch") or {}).get("swapped_pages") or 0
    if pages and not swapped_bytes:
        yield (
            "doubt",
            "swap",
            pages,
            (f"The machine swapped {pages:,} pages during the load: free memory or switch swap off."),
        )


def _generator(run: RunFacts) -> Iterable[Found]:
    share = run.summary.get("cpu_share")
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
                f"A load had to be offered {run.repeats + 1} times, because the generator had been late: the machine "
                "was not quiet."
            ),
        )


def _machine(watch: Mapping[str, Any]) -> Iterable[Found]:
    whole_s = (watch.get("elapsed_s") or 0.0) * len(watch.get("cores") or [])
    if not whole_s:
        return
    other = (watch.get("other_s") or 0.0) / whole_s
    if other > OTHER_SHARE:
        severity: Severity = "grave" if other > GRAVE_OTHER_SHARE else "doubt"
        yield (
            severity,
            "other_load",
            other,
            (
                f"Other programs used {100 * other:.0f} % of the study's cores: end them, or give the study cores "
                "that they do not use."
            ),
        )
    steal = (watch.get("steal_s") or 0.0) / whole_s
    if steal > STEAL_SHARE:
        severity = "grave" if steal > GRAVE_STEAL_SHARE else "doubt"
        yield (
            severity,
            "steal",
            steal,
            (
                f"The hypervisor took {100 * steal:.0f} % of the study's cores for other machines (steal): use a "
                "machine with cores of its own."
            ),
        )


def _clock(watch: Mapping[str, Any]) -> Iterable[Found]:
    source = watch.get("clocksource")
    if source is not None and source not in GOOD_CLOCKS:
        yield (
            "doubt",
            "clocksource",
            1,
            (f"The kernel's clock source is {source}, which is slow to read: choose tsc or the hypervisor's own."),
        )
    drift_ms = abs(watch.get("wall_drift_ms") or 0.0)
    if drift_ms > DRIFT_MS:
        yield (
            "note",
            "clock_set",
            drift_ms,
            (
                f"The wall clock was moved by {drift_ms:.0f} ms during the load: latencies do not depend on it, but "
                "the times of the servers' own metrics do."
            ),
        )
