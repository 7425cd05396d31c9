"""What a million images cost on a rented machine, from a dated, cited price file that a person can replace."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servestorm.analysis.metric import Metric, Row, Value
from servestorm.errors import StudyError
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile

PRICES: Final = Path(__file__).with_name("prices.yaml")
"""The price file that comes with servestorm."""
_MILLION = 1_000_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Instance(_Strict):
    """One kind of machine for rent."""

    name: str = Field(min_length=1, description="as its provider calls it")
    provider: str = Field(min_length=1, description="who rents it out")
    region: str = Field(min_length=1, description="where, as its provider calls it")
    vcpus: Annotated[int, Field(gt=0)] = Field(description="hardware threads")
    memory_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(description="memory in GiB")
    usd_per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="US dollars an hour, on demand"
    )
    dated: datetime.date = Field(description="day of the price list, YYYY-MM-DD")
    source: str = Field(pattern=r"^https?://", description="address of the page on which the price was read")


class Prices(_Strict):
    """A price file."""

    instances: list[Instance] = Field(min_length=1, description="in the order of the report")


def load_prices(path: Path | None = None) -> Prices:
    """The prices of a file, or those that come with servestorm; raises StudyError naming what is wrong in it."""
    return _load(path or PRICES)


@cache
def _load(path: Path) -> Prices:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Prices.model_validate(document)
    except FileNotFoundError as error:
        raise StudyError(
            f"{path} does not exist: name a price file such as {PRICES}, or leave `prices` out."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read as a price file ({error}): give a YAML file.") from error
    except yaml.YAMLError as error:
        problem = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise StudyError(f"{path} is not YAML ({problem}): begin from a copy of {PRICES}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise StudyError(f"{path}: {where}: {first['msg'].lower()}; compare with {PRICES}.") from error
    except (
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:  # of values that YAML reads, such as a date of month 13
        raise StudyError(f"{path} cannot be read as a price file ({error}): begin from a copy of {PRICES}.") from error


@dataclass(frozen=True)
class Cost:
    """Of one engine on one kind of machine."""

    instance: str
    provider: str
    region: str
    usd_per_million: float
    images_per_hour: float
    """Of one such machine whose every vCPU does what one core of the study did."""
    memory_enough: bool | None
    """Whether so many servers as fill its vCPUs fit into its memory; None where their memory is not known."""
    dated: str
    """ISO 8601 day of the price."""
    source: str


def cost_per_million(images_per_s: float, cores: float, instance: Instance, rss_bytes: float | None = None) -> Cost:
    """The cost on `instance` of what gave `images_per_s` on `cores` cores with `rss_bytes` of memory.

    usd_per_hour / (images_per_s / cores x vcpus x 3600) x 1,000,000: every core is paid for by the hour, whether it is
    busy or not, and the machine is taken to be filled with such servers, each vCPU as fast as a core of the study. It
    is a figure to compare engines by, not a bill. Raises ValueError unless rate and cores are positive.
    """
    if images_per_s <= 0 or cores <= 0:
        raise ValueError("a cost needs images that were answered and cores that answered them.")
    filled = instance.vcpus / cores
    images_per_hour = images_per_s * filled * 3600
    enough = None if rss_bytes is None else rss_bytes * max(1.0, filled) <= instance.memory_gib * 2**30
    return Cost(
        instance=instance.name,
        provider=instance.provider,
        region=instance.region,
        usd_per_million=instance.usd_per_hour / images_per_hour * _MILLION,
        images_per_hour=images_per_hour,
        memory_enough=enough,
        dated=instance.dated.isoformat(),
        source=instance.source,
    )


def costs(images_per_s: float | None, cores: float, prices: Prices, rss_bytes: float | None = None) -> Sequence[Cost]:
    """The cost on every machine of the price file; empty where no rate is known or nothing was answered."""
    if not images_per_s or images_per_s < 0 or cores <= 0:
        return []
    return [cost_per_million(images_per_s, cores, instance, rss_bytes) for instance in prices.instances]


@dataclass(frozen=True)
class FleetCost:
    """Of the replicas under an autoscaler on one kind of machine, beside a fleet that always has the most of them."""

    instance: str
    provider: str
    region: str
    usd_per_hour: float
    """Of as many replicas as there were on average."""
    fixed_usd_per_hour: float
    """Of the most replicas, all the time."""
    dated: str
    """ISO 8601 day of the price."""
    source: str


def replica_usd_per_hour(instance: Instance, cpus: float, memory_bytes: float) -> float:
    """What one replica costs on `instance`: the share of it that the replica fills, of CPUs or memory the larger one.

    A machine takes no more replicas once either is full. What a node keeps for itself is not counted.
    """
    share = max(cpus / instance.vcpus, memory_bytes / (instance.memory_gib * 2**30))
    return instance.usd_per_hour * share


def fleet_costs(
    replicas_mean: float | None, most: int, cpus: float, memory_bytes: float, prices: Prices
) -> Sequence[FleetCost]:
    """The cost of so many replicas on average, and of `most`, on every machine of the price file; empty for None."""
    if replicas_mean is None:
        return []
    return [
        FleetCost(
            instance=instance.name,
            provider=instance.provider,
            region=instance.region,
            usd_per_hour=replicas_mean * one,
            fixed_usd_per_hour=most * one,
            dated=instance.dated.isoformat(),
            source=instance.source,
        )
        for instance in prices.instances
        for one in (replica_usd_per_hour(instance, cpus, memory_bytes),)
    ]


def capacity_costs(capacity: Metric, metrics: Sequence[Metric], record: RunRecord) -> dict[str, list[Cost]]:
    """What a million images cost on each engine at the capacity that a row holds; `metrics` are all of the study.

    An engine whose capacity may not be quoted has no cost. Raises StudyError for a broken price file.
    """
    prices = load_prices(record.prices_path)
    # a replica with a limit needs no more of a machine than that
    cores = record.study.plan.replica_limits.cpus or len(record.study.cores.engine)
    peaks = _peak_bytes(capacity, metrics, record)
    return {
        engine: list(costs(value.quotable, cores, prices, peaks[engine])) for engine, value in capacity.values.items()
    }


def _peak_bytes(capacity: Metric, metrics: Sequence[Metric], record: RunRecord) -> dict[str, float | None]:
    """Each engine's peak memory under the load of the search's probes and under steady and bursty load alike to it.

    Of all its servers' processes, and memory that they share counts in each of them. None where it is not known.
    """
    peaks: dict[str, list[float]] = {engine: [] for engine in capacity.values}
    variant = capacity.group.partition("[")[2]
    for metric in metrics:
        if metric.key.endswith(".rss_peak_mib") and metric.group.partition("[")[2] == variant:
            for engine, value in metric.values.items():
                peaks[engine] += [2.0**20 * mib for mib in value.runs if mib is not None]
    for cell in record.cells:
        label = record.study.variants[cell.cell.variant].label
        if cell.cell.scenario == capacity.scenario and label == variant.removesuffix("]"):
            peaks[cell.cell.engine] += _probes_bytes(cell)
    return {engine: max(known, default=None) for engine, known in peaks.items()}


def _probes_bytes(cell: CellRecord) -> list[float]:
    """Peak memory at the end of each probe, where it is known."""
    peaks = [load.use.end.rss_peak_bytes for load in cell.loads if load.use and load.probe is not None]
    return [float(peak) for peak in peaks if peak is not None]


FLEET_COST: Final = Row(
    "cost_per_hour",
    "cost of the replicas on the first machine of the price file",
    "USD an hour",
    "lower",
    "mean replicas by the price of the share of a machine that one replica's limits fill",
)


def replica_cost_row(replicas_mean: Metric, record: RunRecord) -> Metric:
    """What a mean number of replicas costs an hour on the price file's first machine.

    Raises StudyError for a broken price file.
    """
    instance = load_prices(record.prices_path).instances[0]
    one = replica_usd_per_hour(instance, *_replica_size(record.study.plan))
    label = f"cost of the replicas on {instance.name} ({instance.provider})"
    values = {engine: _times(value, one) for engine, value in replicas_mean.values.items()}
    row, key = FLEET_COST, f"{replicas_mean.group}.{FLEET_COST.name}"
    return replace(replicas_mean, key=key, label=label, unit=row.unit, definition=row.definition, values=values)


def _times(value: Value, factor: float) -> Value:
    def scaled(number: float | None) -> float | None:
        return None if number is None else number * factor

    return replace(
        value,
        value=scaled(value.value),
        sd=scaled(value.sd),
        runs=[scaled(run) for run in value.runs],
        ci=None if value.ci is None else (value.ci[0] * factor, value.ci[1] * factor),
    )


def _replica_size(plan: PlanFile) -> tuple[float, float]:
    """CPUs and bytes of memory that one replica of a cluster has."""
    cpus, memory_mib = plan.replica_limits
    assert cpus is not None and memory_mib is not None  # a pod has limits, the plan's or the usual ones
    return cpus, memory_mib * 2.0**20


def replica_costs(replicas_mean: Metric, most: int, record: RunRecord) -> dict[str, list[FleetCost]]:
    """What each engine's mean number of replicas costs, beside a fixed fleet of `most`.

    Raises StudyError for a broken price file.
    """
    prices, size = load_prices(record.prices_path), _replica_size(record.study.plan)
    return {
        engine: list(fleet_costs(value.quotable, most, *size, prices)) for engine, value in replicas_mean.values.items()
    }
