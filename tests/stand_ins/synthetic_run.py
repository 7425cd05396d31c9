"""A run directory with known samples, made without any server: what report and statistics tests read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from servestorm.plan.cells import Cell, cells_of, variants_of
from servestorm.plan.study_plan import Plan, parse_plan
from servestorm.rundir.record import CellRecord, RunRecord, StoredJson
from servestorm.rundir.shapes.environment import EnvironmentFile
from servestorm.rundir.shapes.study import CoresFile, PlanFile, StudyFile, VariantFile
from servestorm.study.cores import assign

PLAN = """\
name: synthetic
model: {name: cnn}
engines: [savedmodel, torchserve]
repetitions: 3
cold_starts: 5
steady: {rate_per_s: 80, duration_s: 12, warmup_s: 2}
bursty: {base_rate: 20, peak_rate: 120, on_s: 2, off_s: 4, duration_s: 18, warmup_s: 2}
scaling: {replicas: [1, 2], concurrency: 16, duration_s: 8, repetitions: 1}
cpus: {engine: [0], generator: [0]}
"""
LATENCY_MS = {"savedmodel": 4.0, "torchserve": 11.0, "tfserving": 2.5}
PHASES_S = {"savedmodel": (0.9, 3.4, 0.2), "torchserve": (1.6, 6.1, 0.15), "tfserving": (0.2, 0.8, 0.1)}
START_NS = 5_000_000_000_000


def make_run(
    root: Path, plan_text: str = PLAN, parity: str = "proved", make: Callable[..., Path] | None = None
) -> Path:
    """Write a whole run of the plan under `root`; `make` writes each cell, in place of make_cell."""
    plan = parse_plan(plan_text, "plan.yaml")
    cells = cells_of(plan)
    path = root / "20260101-000000-synthetic"
    cores = assign(plan, available={0, 1})
    _write(path / "study.json", _study(path, plan, cells, cores.notes))
    _write(path / "environment.json", _environment())
    _write(path / "manifest.json", _manifest(parity))
    (path / "plan.yaml").write_text(plan_text)
    for cell in cells:
        (make or make_cell)(path, plan, cell)
    return path


def bare_record(path: Path, engine_cores: list[int], cells: Sequence[CellRecord] = (), **plan) -> RunRecord:
    """What is read of a run directory of one variant, with nothing in it but what is given."""
    study = StudyFile.model_construct(
        plan=PlanFile.model_construct(**{"backend": "process", **plan}),
        cores=CoresFile.model_construct(engine=engine_cores),
        variants=[VariantFile.model_construct(label="", server_label="", images_per_request=1)],
    )
    return RunRecord(path, study, EnvironmentFile(), [], list(cells), StoredJson({}, {}, []))


def _study(path: Path, plan: Plan, cells: list[Cell], notes: tuple[str, ...]) -> dict:
    return {
        "schema_version": 2,
        "id": path.name,
        "state": "complete",
        "reason": None,
        "started_at": "2026-01-01T00:00:00+00:00",
        "ended_at": "2026-01-01T00:08:00+00:00",
        "plan": plan.model_dump(mode="json"),
        "cores": {"engine": [0], "generator": [1], "notes": list(notes)},
        "engines": dict.fromkeys(plan.engines, "1.0"),
        "resumed_at": [],
        "variants": [asdict(variant) for variant in variants_of(plan)],
        "model_paths": ["build/models/cnn"],
        "cells": [cell.id for cell in cells],
    }


def _environment() -> dict:
    return {
        "cpu_model": "Made-up Processor 1",
        "cores": 2,
        "cores_usable": 2,
        "memory_bytes": 8 * 2**30,
        "kernel": "6.1",
        "system": "Debian",
        "python": "3.11",
        "java": "17.0.9",
        "packages": {"torch": "2.13.0"},
        "git_commit": "0123456789abcdef",
        "seed": 1,
    }


CHECKED = {"answers": "checked", "ok": 1000, "wrong_answers": 0}
"""Of each load under which answers were held against the export's."""


def _manifest(parity: str) -> dict:
    proved = parity == "proved"
    return {
        "name": "cnn",
        "version": 1,
        "architecture": "cnn",
        "dataset": "digits",
        "weights_from": "keras",
        "labels": [str(n) for n in range(10)],
        "accuracy": {"images": 359, "top1": 0.978, "top5": 0.999} if proved else None,
        "parity": {
            "status": parity,
            "tolerance": 1e-5,
            "images": 256 if proved else 0,
            "max_abs_difference": 4.2e-7 if proved else None,
            "reason": None if proved else "no images were given",
        },
    }


def make_cell(run: Path, plan: Plan, cell: Cell, *, valid: bool = True) -> Path:
    """Write one complete cell with seeded samples."""
    folder = run / "cells" / cell.id
    _write(folder / "cell.json", cell.as_dict())
    _write(folder / "outcome.json", {"state": "complete", "reason": None, "scraper": "built-in scraper"})
    random = np.random.default_rng([cell.index, 7])
    _write(folder / "events.json", _events(cell, random))
    if cell.scenario == "coldstart":
        _write(folder / "use.json", {"start": {"rss_bytes": 400 * 2**20}})
        _write(folder / "settled.json", _settled(cell, random))
        return folder
    scheduled_s, images = _arrivals(plan, cell, random)
    latency_s = _latency(cell, random, scheduled_s.size)
    write_samples(folder, scheduled_s, latency_s, warmup_s=2.0, endpoints=cell.replicas)
    reasons = [] if valid else ["p99 lag is 4.1 ms, over 1.0 ms"]
    _write(folder / "summary.json", {"valid": valid, "reasons": reasons, "images_per_s": images, **CHECKED})
    cpu_s = scheduled_s.size * LATENCY_MS[cell.engine] * 0.0007
    use = {"rss_peak_bytes": int(4e8 * cell.replicas * LATENCY_MS[cell.engine] / 4), "disk_bytes": 2_000_000}
    _write(folder / "use.json", {"ready": {"cpu_s": 3.0, **use}, "end": {"cpu_s": 3.0 + cpu_s, **use}})
    return folder


def _events(cell: Cell, random: np.random.Generator) -> list[dict]:
    times = [0.01, *np.cumsum([phase * random.uniform(0.95, 1.1) for phase in PHASES_S[cell.engine]])]
    names = ["spawned", "port_bound", "ready", "first_right_answer"]
    return [
        {"name": name, "t_ns": START_NS + int(t * 1e9), "replica": 0, "detail": ""}
        for name, t in zip(names, times, strict=True)
    ]


def _settled(cell: Cell, random: np.random.Generator) -> list[list[float]]:
    """Answers one by one after the first: some slow ones, then steady."""
    latency_ms = LATENCY_MS[cell.engine] * (1 + 3.0 * (np.arange(120) < 10)) * random.uniform(0.95, 1.05, 120)
    begin_ns = START_NS + int((0.01 + 1.1 * sum(PHASES_S[cell.engine])) * 1e9)
    return [[begin_ns + int(t * 1e6), float(ms)] for t, ms in zip(np.cumsum(latency_ms), latency_ms, strict=True)]


def _arrivals(plan: Plan, cell: Cell, random: np.random.Generator) -> tuple[np.ndarray, float]:
    load = {"steady": plan.steady, "bursty": plan.bursty, "scaling": plan.scaling}[cell.scenario]
    end = load.duration_s + load.warmup_s
    if cell.scenario == "steady":
        rate = plan.steady.rate_per_s
    elif cell.scenario == "scaling":
        rate = 900 / LATENCY_MS[cell.engine] * (1 + 0.07 * (cell.replicas - 1))
    else:
        times = np.sort(random.uniform(0, end, int(end * plan.bursty.peak_rate)))
        on = (times % (plan.bursty.on_s + plan.bursty.off_s)) >= plan.bursty.off_s
        keep = on | (random.uniform(size=times.size) < plan.bursty.base_rate / plan.bursty.peak_rate)
        return times[keep], float(keep.sum() / end)
    return np.sort(random.uniform(0, end, int(end * rate))), rate


def _latency(cell: Cell, random: np.random.Generator, size: int) -> np.ndarray:
    base = LATENCY_MS[cell.engine] * random.uniform(0.96, 1.04)
    return (base * 0.7 + random.gamma(1.5, base * 0.3, size) + 40 * (random.uniform(size=size) > 0.995)) / 1000


def write_samples(
    folder: Path,
    scheduled_s: np.ndarray,
    latency_s: np.ndarray,
    *,
    warmup_s: float = 0.0,
    endpoints: int = 1,
    **columns,
):
    """samples.parquet as the load generator writes it; `columns` replace the made-up ones."""
    scheduled = START_NS + (scheduled_s * 1e9).astype(np.int64)
    size = scheduled.size
    table = {
        "scheduled_ns": scheduled,
        "sent_ns": scheduled,
        "first_byte_ns": scheduled + 1,
        "done_ns": scheduled + (latency_s * 1e9).astype(np.int64),
        "outcome": pa.array(["ok"] * size).dictionary_encode(),
        "status": pa.array([200] * size, pa.int32()),
        "sent_bytes": np.full(size, 700, np.int32),
        "received_bytes": np.full(size, 250, np.int32),
        "endpoint": np.arange(size, dtype=np.int16) % endpoints,
        "images": np.ones(size, np.int16),
        "warmup": scheduled_s < warmup_s,
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**table, **columns}), folder / "samples.parquet")


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
