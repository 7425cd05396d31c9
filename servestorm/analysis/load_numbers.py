"""The numbers of a run with one load, from its samples and from what its servers used."""

from __future__ import annotations

from pathlib import Path

from servestorm.analysis.doubt_facts import busiest_over_mean
from servestorm.analysis.run import mib
from servestorm.analysis.scenario import Numbers
from servestorm.methods.known_sums import sum_if_known
from servestorm.methods.run_figures import run_figures
from servestorm.methods.samples import Samples
from servestorm.rundir.counted_samples import asked_load, load_duration_s
from servestorm.rundir.record import CellRecord
from servestorm.rundir.samples import read_traffic_bytes
from servestorm.rundir.shapes.cell import UseFile
from servestorm.rundir.shapes.study import PlanFile


def load_numbers(record: CellRecord, samples: Samples, plan: PlanFile) -> Numbers:
    """Latencies, throughput, failures and what the servers and the machine's GPUs used."""
    asked = asked_load(plan, record)
    assert asked and record.samples_path
    use = record.use or UseFile()
    numbers = run_figures(samples, duration_s=load_duration_s(record, asked), cpu_s=use.load_cpu_s)
    if record.cell.replicas > 1:
        numbers["largest_over_mean"] = busiest_over_mean(record)
    numbers |= _traffic_numbers(record.samples_path, samples.images_with_warmup)
    numbers |= _use_numbers(use, samples.images_with_warmup)
    return numbers | _gpu_numbers(record, plan, samples.images_with_warmup)


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
    return {
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
    energy_j, memory_bytes = (
        sum_if_known([gpu.energy_j for gpu in gpus]),
        sum_if_known([gpu.memory_bytes for gpu in gpus]),
    )
    percent = sum_if_known([gpu.utilisation_percent for gpu in gpus])
    return {
        "gpu_j_per_image": energy_j / images if energy_j is not None and images else None,
        "gpu_percent": None if percent is None else percent / len(gpus),
        "gpu_memory_mib": mib(memory_bytes),
    }
