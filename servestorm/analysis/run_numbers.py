"""From one cell's folder to its numbers. What cannot be told is None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.samples.validity import servers_overloaded
from servestorm.analysis.doubt_facts import busiest_over_mean
from servestorm.analysis.groups import group_key
from servestorm.analysis.run import LOADS, QUOTED, Run, SearchObjective, SearchResult, SweepPoint, mib
from servestorm.analysis.scenarios.coldstart import ledger, own_figures, steady_ns
from servestorm.errors import StudyError
from servestorm.methods.autoscaling import Autoscaled, Shape, autoscaled, numbers_of
from servestorm.methods.bursts import Burst, bursts
from servestorm.methods.capacity_estimate import crossing
from servestorm.methods.capacity_search import Probe
from servestorm.methods.percentiles import QUANTILES, percentile
from servestorm.plan.cells import Cell, Scenario
from servestorm.plan.labels import CONTAINER_PHASES, phases_of
from servestorm.plan.scenarios import Autoscaling, Bursty, Scaling, Steady
from servestorm.rundir.files import SUMMARY
from servestorm.rundir.record import CellRecord
from servestorm.rundir.samples import Samples, read_load, read_samples, read_traffic_bytes
from servestorm.rundir.shapes.cell import EventFile, OutcomeFile, UseFile
from servestorm.rundir.shapes.search import CapacityFile, PointFile
from servestorm.rundir.shapes.study import PlanFile, StudyFile, VariantFile

_ROUNDING = 1e-4
"""The generator is given six digits of a rate and of a time."""


UNFINISHED = OutcomeFile(state="unfinished", reason="the study was killed in it")
"""The outcome of a cell that left none."""


def measure(record: CellRecord, study: StudyFile) -> tuple[Run, Samples | None]:
    """A cell's run, and its samples where it is complete and one load was offered. Raises StudyError for a broken file.

    `study` holds the plan and its variants.
    """
    cell, outcome, plan = record.cell, record.outcome or UNFINISHED, study.plan
    variant = study.variants[cell.variant]
    samples = None
    if record.complete and cell.scenario in LOADS and record.samples_path:
        samples = read_samples(record.samples_path)
        _require_alike(record, samples, _load_of(plan, cell.scenario))
    search = _search(record.capacity) if record.capacity else None
    numbers = _numbers(record, samples, plan, variant, search) if record.complete else {}
    found = _bursts(record, plan.bursty) if cell.scenario == "bursty" and samples and plan.bursty else []
    scaled = _autoscaled(record, plan.autoscaling) if cell.scenario == "autoscaling" and samples else None
    run = Run(
        id=cell.id,
        scenario=cell.scenario,
        engine=cell.engine,
        replicas=cell.replicas,
        repetition=cell.repetition,
        group=group_key(cell, variant),
        state=outcome.state,
        valid=_valid(record) if record.complete else None,
        reasons=[*([outcome.reason] if outcome.reason else []), *_reasons(record)],
        numbers=numbers | _burst_numbers(found) | (numbers_of(scaled) if scaled else {}),
        samples=int(samples.ok.sum()) if samples else 0,
        requests=int(samples.ok.size) if samples else 0,
        phases_s=_phases(numbers, plan.backend) if cell.scenario == "coldstart" else {},
        capacity=search,
        bursts=found,
        autoscaling=scaled,
        points=[_point(point, cell) for point in record.sweep or []],
    )
    return run, samples


def _load_of(plan: PlanFile, scenario: Scenario) -> Steady | Bursty | Scaling | Autoscaling:
    loads = {"steady": plan.steady, "bursty": plan.bursty, "scaling": plan.scaling, "autoscaling": plan.autoscaling}
    load = loads[scenario]
    assert load  # read_run refuses a run that the plan does not ask for
    return load


def _require_alike(record: CellRecord, samples: Samples, load: Steady | Bursty | Scaling | Autoscaling) -> None:
    """The plan, summary.json and samples.parquet are of one load; what a summary leaves out cannot be compared."""
    summary, path = record.summary, record.path / SUMMARY
    requests = int(samples.ok.size)
    if summary and summary.has("scheduled") and summary.scheduled != requests:
        raise StudyError(
            f"{path} tells of {summary.scheduled} requests, and samples.parquet beside it holds {requests}: one of "
            "them was edited; run the study again."
        )
    if not requests and not (summary and summary.has("scheduled")):
        raise StudyError(f"{record.samples_path} holds no request: it was edited or cut short; run the study again.")
    if not summary:
        return
    # a closed loop has no rate, and one with bursts has several
    rate = load.rate_per_s if isinstance(load, Steady) else None
    for name, asked, given in (("duration_s", load.duration_s, summary.duration_s), ("rate", rate, summary.rate)):
        if asked is None or given is None or not summary.has(name):
            continue
        if not math.isclose(asked, given, rel_tol=_ROUNDING):
            raise StudyError(
                f"{path} has a {name} of {given:g}, and study.json asks for {asked:g}: one of them was edited; run the "
                "study again."
            )


def _valid(record: CellRecord) -> bool | None:
    """Whether the run is VALID: by its summary, by its search having found a rate, by any of its sweep's points."""
    if record.summary:
        # until an autoscaler's replicas have come, requests may well fail: that is what is asked, and counted
        expected = record.cell.scenario == "autoscaling" and servers_overloaded(record.summary.reasons)
        return expected or record.summary.valid
    if record.capacity:
        return record.capacity.confirmed
    if record.sweep:
        return any(point.valid for point in record.sweep)
    return None


def _reasons(record: CellRecord) -> list[str]:
    if record.capacity and not record.capacity.confirmed:
        return [record.capacity.reason]
    reasons = {reason for point in record.sweep or [] for reason in point.reasons}
    return [*(record.summary.reasons if record.summary else []), *sorted(reasons)]


def _point(point: PointFile, cell: Cell) -> SweepPoint:
    return SweepPoint(
        images_per_request=point.images_per_request,
        concurrency=point.concurrency,
        images_per_s=point.images_per_s,
        p50_ms=point.p50_ms,
        p99_ms=point.p99_ms,
        valid=point.valid,
        reasons=point.reasons,
        threads=cell.threads,
        max_batch_size=cell.max_batch_size,
        timeout_us=cell.timeout_us,
        replicas=cell.replicas,
    )


def _numbers(
    record: CellRecord, samples: Samples | None, plan: PlanFile, variant: VariantFile, search: SearchResult | None
) -> dict[str, float | None]:
    if record.cell.scenario == "coldstart":
        return _start_numbers(record)
    if search:
        found = {
            "images_per_s": search.rate_per_s,
            "images_per_s_low": search.low,
            "images_per_s_high": search.high,
            "crossing_images_per_s": search.crossing.rate_per_s if search.crossing else None,
        }
        images = variant.images_per_request
        return {name: None if rate is None else rate * images for name, rate in found.items()}
    if samples is None:
        return {}
    numbers = _load_numbers(samples, record, _load_of(plan, record.cell.scenario).duration_s)
    return numbers | _gpu_numbers(record, plan, samples.images_with_warmup)


def _search(found: CapacityFile) -> SearchResult:
    """The search, with where p99 meets the objective by all its probes."""
    probes = [
        Probe(probe.rate_per_s, probe.verdict, probe.reason, probe.p99_ms, probe.error_percent, probe.confirms)
        for probe in found.probes
    ]
    return SearchResult(
        objective=SearchObjective(found.objective.p99_ms, found.objective.max_error_percent),
        rate_per_s=found.rate_per_s,
        low=found.low,
        high=found.high,
        confirmed=found.confirmed,
        probes=probes,
        reason=found.reason,
        crossing=crossing(probes, found.objective.p99_ms),
    )


def _start_numbers(record: CellRecord) -> dict[str, float | None]:
    """The ledger of a cold start, with the server's own figures beside it."""
    own = own_figures(record.cell.engine, record.series(), record.server_log())
    numbers = ledger(_with_steady(record), own)
    numbers["rss_mib"] = mib(record.use.start.rss_bytes if record.use else None)
    return numbers


def _with_steady(record: CellRecord) -> Sequence[EventFile]:
    """The events, with the moment from which on the answers were steady where they became so."""
    t_ns = steady_ns(record.settled or [])
    return (
        record.events if t_ns is None else [*record.events, EventFile(name="steady", t_ns=t_ns, replica=0, detail="")]
    )


def _load_numbers(samples: Samples, record: CellRecord, duration_s: float) -> dict[str, float | None]:
    latency = samples.image_latency_ms
    latency.sort()
    numbers: dict[str, float | None] = {name: percentile(latency, QUANTILES[name]) for name in QUOTED}
    if samples.ok.any() and samples.images.max() > 1:
        requests = samples.latency_ns[samples.ok] / 1e6
        numbers |= {f"request_{name}": percentile(requests, QUANTILES[name]) for name in ("p50", "p99")}
    numbers["mean_ms"] = float(latency.mean()) if latency.size else None
    numbers["images_per_s"] = samples.images_per_s(duration_s)
    numbers["failed_percent"] = 100 * float(1 - samples.ok.mean()) if samples.ok.size else None
    assert record.samples_path
    if record.cell.replicas > 1:
        numbers["largest_over_mean"] = busiest_over_mean(record)
    numbers |= _traffic_numbers(record.samples_path, samples.images_with_warmup)
    return numbers | _use_numbers(record.use or UseFile(), samples.images_with_warmup)


def _bursts(record: CellRecord, asked: Bursty) -> list[Burst]:
    assert record.samples_path
    found = read_load(record.samples_path, asked.warmup_s)
    if found is None:
        return []
    times = {"on_s": asked.on_s, "off_s": asked.off_s, "duration_s": asked.duration_s}
    return bursts(found[0], **times, objective_ms=asked.objective_ms)


def _autoscaled(record: CellRecord, asked: Autoscaling | None) -> Autoscaled | None:
    assert record.samples_path and asked
    found = read_load(record.samples_path, asked.warmup_s)
    if found is None:
        return None
    load, start_ns = found
    times = {"on_s": asked.on_s, "off_s": asked.off_s, "duration_s": asked.duration_s}
    shape = Shape(asked.min_replicas, asked.objective_ms, asked.duration_s, asked.watch_after_s)
    return autoscaled(record.events, load, start_ns, bursts(load, **times, objective_ms=asked.objective_ms), shape)


def _burst_numbers(found: Sequence[Burst]) -> dict[str, float | None]:
    """Over the bursts of a run: share of violations, longest queue, mean recovery where every one was seen."""
    if not found:
        return {}
    late = [burst.violations for burst in found if burst.violations is not None]
    requests, recovered = (
        sum(burst.requests for burst in found),
        [b.recover_s for b in found if b.recover_s is not None],
    )
    return {
        "burst_violations_percent": 100 * sum(late) / requests if late and requests else None,
        "burst_queue_peak": float(max(burst.queue_peak for burst in found)),
        "burst_recover_s": sum(recovered) / len(recovered) if len(recovered) == len(found) else None,
    }


def _traffic_numbers(path: Path, images: int) -> dict[str, float | None]:
    sent, received = read_traffic_bytes(path)
    if not images:
        return {}
    return {"sent_kib_per_1000": 1000 * sent / images / 1024, "received_kib_per_1000": 1000 * received / images / 1024}


def _use_numbers(use: UseFile, images: int) -> dict[str, float | None]:
    """What the servers used under load, per image or a thousand; both sides of the division hold the warm-up."""
    ready, end = use.ready, use.end

    def per_image(before: float | None, after: float | None) -> float | None:
        return (after - before) / images if before is not None and after is not None and images else None

    read = per_image(ready.disk_read_bytes, end.disk_read_bytes)
    written = per_image(ready.disk_written_bytes, end.disk_written_bytes)
    cpu_s = per_image(ready.cpu_s, end.cpu_s)
    return {
        "cpu_ms_per_image": None if cpu_s is None else 1000 * cpu_s,
        "rss_peak_mib": mib(end.rss_peak_bytes),
        "disk_mib": mib(end.disk_bytes),
        "disk_read_kib_per_1000": None if read is None else 1000 * read / 1024,
        "disk_written_kib_per_1000": None if written is None else 1000 * written / 1024,
    }


def _gpu_numbers(record: CellRecord, plan: PlanFile, images: int) -> dict[str, float | None]:
    """What all GPUs of this machine used together, whoever used them; nothing where the servers are not known to be on
    it, or the load was not offered from it. A figure that one of them does not tell is None.
    """
    here = plan.backend in ("process", "docker") and plan.load_from == "here"
    found = (record.use.watch.gpus if record.use else None) or []
    if not here or not found:
        return {}
    energy_j, memory_bytes = _sum([gpu.energy_j for gpu in found]), _sum([gpu.memory_bytes for gpu in found])
    percent = _sum([gpu.utilisation_percent for gpu in found])
    return {
        "gpu_j_per_image": energy_j / images if energy_j is not None and images else None,
        "gpu_percent": None if percent is None else percent / len(found),
        "gpu_memory_mib": mib(memory_bytes),
    }


def _sum(values: Sequence[float | None]) -> float | None:
    """None where one of them is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _phases(numbers: Mapping[str, float | None], backend: str) -> dict[str, float | None]:
    """Seconds of each cold-start phase, by the event that ends it; a container's own only where it has them."""
    found = {phase: numbers.get(f"{phase}_s") for phase in phases_of(backend)}
    return {phase: s for phase, s in found.items() if s is not None or phase not in CONTAINER_PHASES}
