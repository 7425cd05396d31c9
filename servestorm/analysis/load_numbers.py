"""The numbers of a run with one load, from its samples and from what its servers used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from servestorm.analysis.doubt_facts import busiest_over_mean
from servestorm.analysis.run import QUOTED, mib
from servestorm.analysis.scenario import Numbers
from servestorm.errors import StudyError
from servestorm.methods.percentiles import QUANTILES, percentile
from servestorm.methods.samples import Samples
from servestorm.plan.scenarios import Autoscaling, Bursty, Scaling, Steady
from servestorm.rundir.files import SUMMARY
from servestorm.rundir.record import CellRecord
from servestorm.rundir.samples import read_samples, read_traffic_bytes
from servestorm.rundir.shapes.cell import UseFile
from servestorm.rundir.shapes.study import PlanFile

OneLoad = Steady | Bursty | Scaling | Autoscaling
"""The sections of a plan that ask for one load a cell, whose samples lie in the cell's own folder."""
_ROUNDING: Final = 1e-4
"""The generator is given six digits of a rate and of a time."""


def read_load_samples(record: CellRecord, asked: OneLoad) -> Samples | None:
    """The samples of a complete run; None where the run is not complete.

    Raises StudyError for a broken file, and where plan, summary and samples are not of one load.
    """
    if not record.complete or not record.samples_path:
        return None
    samples = read_samples(record.samples_path)
    _require_alike(record, samples, asked)
    return samples


def load_numbers(record: CellRecord, samples: Samples, asked: OneLoad, plan: PlanFile) -> Numbers:
    """Latencies, throughput, failures and what the servers and the machine's GPUs used."""
    numbers = _latency_numbers(samples, record, asked.duration_s)
    return numbers | _gpu_numbers(record, plan, samples.images_with_warmup)


def _require_alike(record: CellRecord, samples: Samples, load: OneLoad) -> None:
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


def _latency_numbers(samples: Samples, record: CellRecord, duration_s: float) -> Numbers:
    latency = samples.image_latency_ms
    latency.sort()
    numbers: Numbers = {name: percentile(latency, QUANTILES[name]) for name in QUOTED}
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


def _traffic_numbers(path: Path, images: int) -> Numbers:
    sent, received = read_traffic_bytes(path)
    if not images:
        return {}
    return {"sent_kib_per_1000": 1000 * sent / images / 1024, "received_kib_per_1000": 1000 * received / images / 1024}


def _use_numbers(use: UseFile, images: int) -> Numbers:
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


def _gpu_numbers(record: CellRecord, plan: PlanFile, images: int) -> Numbers:
    """What all GPUs of this machine used together, whoever used them; nothing where the servers are not known to be on
    it, or the load was not offered from it. A figure that one of them does not tell is None.
    """
    here = plan.backend in ("process", "docker") and plan.load_from == "here"
    gpus = (record.use.watch.gpus if record.use else None) or []
    if not here or not gpus:
        return {}
    energy_j, memory_bytes = _sum([gpu.energy_j for gpu in gpus]), _sum([gpu.memory_bytes for gpu in gpus])
    percent = _sum([gpu.utilisation_percent for gpu in gpus])
    return {
        "gpu_j_per_image": energy_j / images if energy_j is not None and images else None,
        "gpu_percent": None if percent is None else percent / len(gpus),
        "gpu_memory_mib": mib(memory_bytes),
    }


def _sum(values: Sequence[float | None]) -> float | None:
    """None where one of them is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
