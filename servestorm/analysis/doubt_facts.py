"""The facts of a run under load that may be reasons to doubt it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from servestorm.analysis.balance import balance, counted_balance
from servestorm.rundir.files import read_json
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes import checked

SERVICE_READY = "service_ready"
"""Event of a deployment whose load goes to a Service."""


_LOAD_FOLDER: Final = re.compile(r"(probe|load)-(\d+)")
"""Of one probe of a search for the largest rate, and of one load of a sweep."""


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
