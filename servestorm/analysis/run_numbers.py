"""From one cell's folder to its numbers. What cannot be told is None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtests.samples.summary import SUMMARY
from loadtests.samples.validity import servers_overloaded
from servestorm.analysis.doubt_facts import busiest_over_mean
from servestorm.analysis.groups import group_key
from servestorm.analysis.run import LOADS, QUOTED, Run, mib
from servestorm.analysis.scenarios.coldstart import ledger, own_figures, steady_ns
from servestorm.errors import StudyError
from servestorm.methods.autoscaling import Autoscaled, Shape, autoscaled, numbers_of
from servestorm.methods.bursts import Burst, bursts, read_bursts, read_load
from servestorm.methods.capacity_estimate import crossing
from servestorm.methods.capacity_search import Probe
from servestorm.methods.percentiles import QUANTILES, percentile
from servestorm.plan.labels import CONTAINER_PHASES, phases_of
from servestorm.plan.scenarios import Autoscaling
from servestorm.rundir.record import CellRecord
from servestorm.rundir.samples import Samples, read_samples, traffic_bytes
from servestorm.rundir.shapes import read_gpu_use

_ROUNDING = 1e-4
"""The generator is given six digits of a rate and of a time."""


def measure(record: CellRecord, study: Mapping[str, Any]) -> tuple[Run, Samples | None]:
    """A cell's run, and its samples where it is complete and one load was offered. Raises StudyError for a broken file.

    `study` is study.json's content: the plan and its variants.
    """
    cell, outcome = record.cell, record.outcome or {"state": "unfinished", "reason": "the study was killed in it"}
    plan, variant = study["plan"], study["variants"][cell["variant"]]
    samples = None
    if record.complete and cell["scenario"] in LOADS and record.samples_path:
        samples = read_samples(record.samples_path)
        _require_alike(record, samples, plan[cell["scenario"]])
    search = _search(record.capacity) if record.capacity else None
    numbers = _numbers(record, samples, plan, variant, search) if record.complete else {}
    found = _bursts(record, plan["bursty"]) if cell["scenario"] == "bursty" and samples else []
    scaled = _autoscaled(record, plan["autoscaling"]) if cell["scenario"] == "autoscaling" and samples else None
    run = Run(
        **{key: cell[key] for key in ("id", "scenario", "engine", "replicas", "repetition")},
        group=group_key(cell, variant),
        state=outcome["state"],
        valid=_valid(record) if record.complete else None,
        reasons=[*([outcome["reason"]] if outcome.get("reason") else []), *_reasons(record)],
        numbers=numbers | _burst_numbers(found) | (numbers_of(scaled) if scaled else {}),
        samples=int(samples.ok.sum()) if samples else 0,
        requests=int(samples.ok.size) if samples else 0,
        phases_s=_phases(numbers, plan["backend"]) if cell["scenario"] == "coldstart" else {},
        capacity=search,
        bursts=found,
        autoscaling=scaled,
        points=[{**point, **_setting(cell)} for point in record.sweep or []],
    )
    return run, samples


def _require_alike(record: CellRecord, samples: Samples, load: Mapping[str, Any]) -> None:
    """The plan, summary.json and samples.parquet tell of one load; what a summary leaves out cannot be compared."""
    told, path = record.summary or {}, record.path / SUMMARY
    requests = int(samples.ok.size)
    if told.get("scheduled", requests) != requests:
        raise StudyError(
            f"{path} tells of {told['scheduled']} requests, and samples.parquet beside it holds {requests}: one of "
            "them was edited; run the study again."
        )
    if not requests and "scheduled" not in told:
        raise StudyError(f"{record.samples_path} holds no request: it was edited or cut short; run the study again.")
    # a closed loop has no rate, and one with bursts has several
    asked = {"duration_s": load["duration_s"], "rate": load.get("rate_per_s")}
    for name, value in asked.items():
        given = told.get(name)
        if value is not None and given is not None and not math.isclose(value, given, rel_tol=_ROUNDING):
            raise StudyError(
                f"{path} has a {name} of {given:g}, and study.json asks for {value:g}: one of them was edited; run the "
                "study again."
            )


def _valid(record: CellRecord) -> bool | None:
    """Whether the run is VALID: by its summary, by its search having found a rate, by any of its sweep's points."""
    if record.summary:
        # until an autoscaler's replicas have come, requests may well fail: that is what is asked, and counted
        expected = record.cell["scenario"] == "autoscaling" and servers_overloaded(record.summary["reasons"])
        return expected or bool(record.summary["valid"])
    if record.capacity:
        return bool(record.capacity["confirmed"])
    if record.sweep:
        return any(point["valid"] for point in record.sweep)
    return None


def _reasons(record: CellRecord) -> list[str]:
    if record.capacity and not record.capacity["confirmed"]:
        return [record.capacity["reason"]]
    told = {reason for point in record.sweep or [] for reason in point["reasons"]}
    return [*(record.summary or {}).get("reasons", []), *sorted(told)]


def _setting(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell[name] for name in ("threads", "max_batch_size", "timeout_us", "replicas")}


def _numbers(
    record: CellRecord,
    samples: Samples | None,
    plan: Mapping[str, Any],
    variant: Mapping[str, Any],
    search: Mapping[str, Any] | None,
) -> dict[str, float | None]:
    if record.cell["scenario"] == "coldstart":
        return _start_numbers(record)
    if search:
        found = {
            "images_per_s": search["rate_per_s"],
            "images_per_s_low": search["low"],
            "images_per_s_high": search["high"],
            "crossing_images_per_s": (search["crossing"] or {}).get("rate_per_s"),
        }
        images = variant["images_per_request"]
        return {name: None if rate is None else rate * images for name, rate in found.items()}
    if samples is None:
        return {}
    numbers = _load_numbers(samples, record, plan[record.cell["scenario"]]["duration_s"])
    return numbers | _gpu_numbers(record, plan, samples.images_with_warmup)


def _search(found: Mapping[str, Any]) -> dict[str, Any]:
    """capacity.json, with where p99 meets the objective by all its probes."""
    met = crossing([Probe(**probe) for probe in found["probes"]], found["objective"]["p99_ms"])
    return {**found, "crossing": met and asdict(met)}


def _start_numbers(record: CellRecord) -> dict[str, float | None]:
    """The ledger of a cold start, with the server's own figures beside it."""
    log = record.path / "server.log"
    own = own_figures(record.cell["engine"], record.series(), log.read_text(errors="replace") if log.is_file() else "")
    numbers = ledger(_with_steady(record), own)
    numbers["rss_mib"] = mib((record.use or {}).get("start", {}).get("rss_bytes"))
    return numbers


def _with_steady(record: CellRecord) -> Sequence[dict[str, Any]]:
    """The events, with the moment from which on the answers were steady where they became so."""
    t_ns = steady_ns([(int(t_ns), latency_ms) for t_ns, latency_ms in record.settled or []])
    return record.events if t_ns is None else [*record.events, {"name": "steady", "t_ns": t_ns, "replica": 0}]


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
    if record.cell["replicas"] > 1:
        numbers["largest_over_mean"] = busiest_over_mean(record)
    numbers |= _traffic_numbers(record.samples_path, samples.images_with_warmup)
    return numbers | _use_numbers(record.use or {}, samples.images_with_warmup)


def _bursts(record: CellRecord, plan: Mapping[str, Any]) -> list[Burst]:
    assert record.samples_path
    names = ("on_s", "off_s", "duration_s", "warmup_s", "objective_ms")
    return read_bursts(record.samples_path, **{name: plan[name] for name in names})


def _autoscaled(record: CellRecord, plan: Mapping[str, Any]) -> Autoscaled | None:
    assert record.samples_path
    asked = Autoscaling.model_validate(plan)
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
    sent, received = traffic_bytes(path)
    if not images:
        return {}
    return {"sent_kib_per_1000": 1000 * sent / images / 1024, "received_kib_per_1000": 1000 * received / images / 1024}


def _use_numbers(use: Mapping[str, Any], images: int) -> dict[str, float | None]:
    """What the servers used under load, per image or a thousand; both sides of the division hold the warm-up."""
    ready, end = use.get("ready", {}), use.get("end", {})

    def spent(name: str) -> float | None:
        known = ready.get(name) is not None and end.get(name) is not None and images
        return (end[name] - ready[name]) / images if known else None

    read, written = spent("disk_read_bytes"), spent("disk_written_bytes")
    cpu_s = spent("cpu_s")
    return {
        "cpu_ms_per_image": None if cpu_s is None else 1000 * cpu_s,
        "rss_peak_mib": mib(end.get("rss_peak_bytes")),
        "disk_mib": mib(end.get("disk_bytes")),
        "disk_read_kib_per_1000": None if read is None else 1000 * read / 1024,
        "disk_written_kib_per_1000": None if written is None else 1000 * written / 1024,
    }


def _gpu_numbers(record: CellRecord, plan: Mapping[str, Any], images: int) -> dict[str, float | None]:
    """What all GPUs of this machine used together, whoever used them; nothing where the servers are not known to be on
    it, or the load was not offered from it. A figure that one of them does not tell is None.
    """
    here = plan["backend"] in ("process", "docker") and plan.get("load_from", "here") == "here"
    found = read_gpu_use(record.path / "use.json", (record.use or {}).get("watch", {}).get("gpus")) if here else ()
    if not found:
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
