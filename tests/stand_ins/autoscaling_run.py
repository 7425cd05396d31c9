"""A run under an autoscaler whose every event is known, with the latencies of a queue served by those replicas.

Run as a program it writes such a run and its report: python autoscaling_run.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from tests.stand_ins.synthetic_run import START_NS, make_run, write_samples

PLAN = """\
name: scaled
model: {name: cnn}
engines: [savedmodel, torchserve]
backend: kubernetes
limits: {cpus: 0.5, memory_mib: 1024}
cold_starts: 0
repetitions: 3
autoscaling: {min_replicas: 1, max_replicas: 3, cpu_percent: 70, base_rate: 10, peak_rate: 60, on_s: 60, off_s: 60,
              objective_ms: 200, duration_s: 270, warmup_s: 10, scale_down_stabilization_s: 60, cooldown_s: 120}
"""
SERVICE_S = {"savedmodel": 0.030, "torchserve": 0.036}
DECISION_S = {"savedmodel": 16.0, "torchserve": 19.0}
START_S = {"savedmodel": 7.0, "torchserve": 24.0}
WARMUP_S, ONSET_S, LAST_END_S = 10.0, 60.0, 240.0
DOWN_S = (66.0, 81.0)
"""From the last burst's end to the two decisions for one replica fewer."""
END_S = 4.0
"""From its decision until a replica is gone."""


def event(name: str, t_s: float, replica: int | None = None, detail: str = "", zero_ns: int = START_NS) -> dict:
    """As it lies in events.json."""
    return {"name": name, "t_ns": zero_ns + round(t_s * 1e9), "replica": replica, "detail": detail}


def events_of(engine: str, late_s: float = 0.0) -> list[dict]:
    """Of one cell, in seconds from the begin of the measured load: 1 to 3 replicas in the first burst, then back."""
    zero_ns = START_NS + round(WARMUP_S * 1e9)
    decided_s = ONSET_S + DECISION_S[engine] + late_s
    ready_s = decided_s + 0.5 + START_S[engine]
    down_s = [LAST_END_S + down for down in DOWN_S]
    told = [
        ("spawned", -70.0, 0, ""),
        ("ready", -60.0, 0, ""),
        ("load_started", -WARMUP_S - 1.5, None, "cell"),
        ("hpa_scaled", decided_s, None, "1 -> 3"),
        *(("spawned", decided_s + 0.5, replica, "") for replica in (1, 2)),
        *(("ready", ready_s + 2.0 * (replica - 1), replica, "") for replica in (1, 2)),
        ("load_ended", 271.0, None, "cell"),
        ("hpa_scaled", down_s[0], None, "3 -> 2"),
        ("terminating", down_s[0] + 0.1, 2, ""),
        ("stopped", down_s[0] + END_S, 2, ""),
        ("hpa_scaled", down_s[1], None, "2 -> 1"),
        ("terminating", down_s[1] + 0.1, 1, ""),
        ("stopped", down_s[1] + END_S, 1, ""),
        ("cooldown_ended", 391.0, None, ""),
    ]
    return [event(name, t_s, replica, detail, zero_ns) for name, t_s, replica, detail in told]


def make_scaled_cell(run: Path, plan: Plan, cell: Cell) -> Path:
    """Write one complete cell: arrivals as asked, answered by the replicas of its events, first come, first served."""
    folder, random = run / "cells" / cell.id, np.random.default_rng([cell.index, 11])
    events = events_of(cell.engine, late_s=0.8 * cell.repetition)
    scheduled_s = _arrivals(plan, random)
    service_s = SERVICE_S[cell.engine] * random.gamma(20, 1 / 20, scheduled_s.size)
    latency_s = _queued(scheduled_s, service_s, events)
    write_samples(folder, scheduled_s, latency_s, warmup_s=WARMUP_S)
    written = {
        "cell.json": cell.as_dict(),
        "outcome.json": {"state": "complete", "reason": None, "scraper": "built-in scraper"},
        "events.json": events,
        "summary.json": {"valid": True, "reasons": []},
        "use.json": {"ready": {"cpu_s": 3.0}, "end": {"cpu_s": 90.0}},
    }
    for name, value in written.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def _arrivals(plan: Plan, random: np.random.Generator) -> np.ndarray:
    load = plan.autoscaling
    assert load
    warm_up = np.arange(0, WARMUP_S, 1 / load.base_rate)
    times = np.sort(random.uniform(0, load.duration_s, int(load.duration_s * load.peak_rate)))
    in_burst = times % (load.on_s + load.off_s) >= load.off_s
    kept = times[in_burst | (random.uniform(size=times.size) < load.base_rate / load.peak_rate)]
    return np.concatenate([warm_up, WARMUP_S + kept])


def _queued(scheduled_s: np.ndarray, service_s: np.ndarray, events: list[dict]) -> np.ndarray:
    """Latency of each request: one queue, served by the replicas while they are ready."""
    times = {(e["name"], e["replica"]): (e["t_ns"] - START_NS) / 1e9 for e in events}
    replicas = range(3)
    free = {r: times["ready", r] for r in replicas}
    until = {r: times.get(("terminating", r), np.inf) for r in replicas}
    done = np.empty_like(scheduled_s)
    for place, (due, service) in enumerate(zip(scheduled_s, service_s, strict=True)):
        starts = {r: max(due, free[r]) for r in replicas}
        chosen = min((r for r in replicas if starts[r] < until[r]), key=lambda r: (starts[r], r))
        done[place] = free[chosen] = starts[chosen] + service
    return done - scheduled_s


def make_scaled_run(root: Path, plan_text: str = PLAN) -> Path:
    """Write a whole run of the plan under `root`."""
    return make_run(root, plan_text, make=make_scaled_cell)


if __name__ == "__main__":
    from servestorm.report.write import write_report

    print(write_report(make_scaled_run(Path(sys.argv[1])))[1])
