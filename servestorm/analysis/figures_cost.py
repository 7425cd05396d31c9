"""What a million images cost at the capacity that was found, and replicas under an autoscaler, for the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from servestorm.analysis.cost import costs, fleet_costs, load_prices, replica_usd_per_hour
from servestorm.analysis.groups import group_key
from servestorm.analysis.metric import Metric, Value
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile


def cost_figures(metrics: Sequence[Metric], record: RunRecord) -> dict[str, Any]:
    """{group: {engine: [servestorm.analysis.cost.Cost as a dict, ...]}} of every group that asks for a capacity.

    An engine whose capacity may not be quoted has no cost. Raises StudyError for a broken price file.
    """
    rows = [metric for metric in metrics if metric.scenario == "capacity" and metric.key.endswith(".images_per_s")]
    if not rows:
        return {}
    prices = load_prices(record.prices_path)
    # a replica with a limit needs no more of a machine than that
    cores = record.study.plan.replica_limits.cpus or len(record.study.cores.engine)
    return {
        metric.group: {
            engine: [asdict(cost) for cost in costs(value.value if value.valid else None, cores, prices, peaks[engine])]
            for engine, value in metric.values.items()
        }
        for metric in rows
        for peaks in (_peak_bytes(metric, metrics, record),)
    }


def _peak_bytes(capacity: Metric, metrics: Sequence[Metric], record: RunRecord) -> dict[str, float | None]:
    """Each engine's peak memory under the load of the search's probes and under steady and bursty load alike to it.

    Of all its servers' processes, and memory that they share counts in each of them. None where nothing is told.
    """
    found: dict[str, list[float]] = {engine: [] for engine in capacity.values}
    variant = capacity.group.partition("[")[2]
    for metric in metrics:
        if metric.key.endswith(".rss_peak_mib") and metric.group.partition("[")[2] == variant:
            for engine, value in metric.values.items():
                found[engine] += [2.0**20 * mib for mib in value.runs if mib is not None]
    for cell in record.cells:
        if cell.cell.scenario == "capacity" and _group(cell, record) == capacity.group:
            found[cell.cell.engine] += _probes_bytes(cell)
    return {engine: max(peaks, default=None) for engine, peaks in found.items()}


def _group(cell: CellRecord, record: RunRecord) -> str:
    return group_key(cell.cell, record.study.variants[cell.cell.variant])


def _probes_bytes(cell: CellRecord) -> list[float]:
    """Peak memory at the end of each probe, where it is known."""
    peaks = [load.use.end.rss_peak_bytes for load in cell.loads if load.use and load.probe is not None]
    return [float(peak) for peak in peaks if peak is not None]


def with_cost(metrics: Sequence[Metric], record: RunRecord) -> list[Metric]:
    """The metrics, and after each mean number of replicas what they cost an hour on the price file's first machine.

    Raises StudyError for a broken price file.
    """
    found: list[Metric] = []
    for metric in metrics:
        found.append(metric)
        if metric.scenario == "autoscaling" and metric.key.endswith(".replicas_mean"):
            instance = load_prices(record.prices_path).instances[0]
            one = replica_usd_per_hour(instance, *_replica_size(record.study.plan))
            label = f"cost of the replicas on {instance.name} ({instance.provider})"
            values = {engine: _times(value, one) for engine, value in metric.values.items()}
            key = f"{metric.group}.cost_per_hour"
            found.append(replace(metric, key=key, label=label, unit="USD an hour", values=values))
    return found


def _times(value: Value, factor: float) -> Value:
    def scaled(number: float | None) -> float | None:
        return None if number is None else number * factor

    return replace(
        value,
        value=scaled(value.value),
        mean=scaled(value.mean),
        sd=scaled(value.sd),
        runs=[scaled(run) for run in value.runs],
        ci=None if value.ci is None else (value.ci[0] * factor, value.ci[1] * factor),
    )


def _replica_size(plan: PlanFile) -> tuple[float, float]:
    """CPUs and bytes of memory that one replica of a cluster has."""
    cpus, memory_mib = plan.replica_limits
    assert cpus is not None and memory_mib is not None  # a pod has limits, the plan's or the usual ones
    return cpus, memory_mib * 2.0**20


def fleet_figures(metrics: Iterable[Metric], record: RunRecord) -> dict[str, Any]:
    """{group: {engine: [servestorm.analysis.cost.FleetCost as a dict, ...]}} of every group under an autoscaler.

    Raises StudyError for a broken price file.
    """
    rows = [metric for metric in metrics if metric.scenario == "autoscaling" and metric.key.endswith(".replicas_mean")]
    if not rows:
        return {}
    plan = record.study.plan
    assert plan.autoscaling
    prices, size, most = load_prices(record.prices_path), _replica_size(plan), plan.autoscaling.max_replicas
    return {
        metric.group: {
            engine: [asdict(cost) for cost in fleet_costs(value.value if value.valid else None, most, *size, prices)]
            for engine, value in metric.values.items()
        }
        for metric in rows
    }
