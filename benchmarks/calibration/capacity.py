"""Is the capacity that the search finds the capacity there is? Held against a server whose queue is exactly M/D/1.

    .venv/bin/python benchmarks/calibration/capacity.py --out build/calibration-capacity.json

The real generator (loadtests/steady.py, Poisson arrivals) drives tests/stand_ins/known_server.py with --queue-ms, the
product's search and judgement choose the rates, and the capacity under each objective is known in closed form. Two
answers are held against it: the rate that passed twice, and the estimate of where p99 meets the objective. Server and
generator have a core each. `--simulated N` asks the same of N simulated queues instead, which tells what the search and
the length of a probe cost in precision, without any machine's noise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from loadtests.samples.validity import generator_at_fault  # noqa: E402
from servestorm.errors import StudyError  # noqa: E402
from servestorm.methods.capacity_estimate import crossing  # noqa: E402
from servestorm.methods.capacity_search import Capacity, LoadOutcome  # noqa: E402
from servestorm.rundir.record import read_finished_load  # noqa: E402
from tests.simulations import md1  # noqa: E402
from tests.simulations.capacity_searches import SERVICE_MS, START_PER_S, Offer, find, length_s, simulated  # noqa: E402

OBJECTIVES = (5, 10, 20)
"""In service times: at a utilisation of 0.56, 0.77 and 0.89."""
GENERATOR_CORE, SERVER_CORE = max(os.sched_getaffinity(0)), min(os.sched_getaffinity(0))


@contextmanager
def known_server(service_ms: float) -> Iterator[int]:
    """Port of a server with the known queue, on its core."""
    command = [sys.executable, str(ROOT / "tests" / "stand_ins" / "known_server.py"), "--queue-ms", str(service_ms)]
    pinned = ["taskset", "-c", str(SERVER_CORE), *command]
    with subprocess.Popen(pinned, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline().split()[0])
        finally:
            process.terminate()


def real(port: int, seconds: float, seed: int, attempts: int) -> Offer:
    """Loads of the real generator, each offered again where only the generator was at fault, as a study's are."""

    def offer(rate: float, number: int) -> LoadOutcome:
        for _ in range(attempts):
            load = offered(rate, number)
            if not generator_at_fault(load.reasons, percentile_counts=load.p99_ms is not None):
                break
        return load

    def offered(rate: float, number: int) -> LoadOutcome:
        with tempfile.TemporaryDirectory() as folder:
            command = ["taskset", "-c", str(GENERATOR_CORE), sys.executable, "-m", "locust", "--headless"]
            command += ["-f", str(ROOT / "loadtests" / "steady.py"), "--host", f"http://127.0.0.1:{port}"]
            command += ["--engine", "http", "--arrivals", "poisson", "--rate", f"{rate:g}", "--warmup", "2"]
            command += ["--duration", f"{length_s(rate, seconds):g}", "--seed", str(1000 * seed + number)]
            done = subprocess.run([*command, "--out", folder], capture_output=True, text=True, cwd=folder, check=False)
            try:
                load = read_finished_load(Path(folder)).outcome
            except StudyError:
                raise SystemExit(done.stdout + done.stderr) from None
        print(f"{rate:g}/s: p99 {load.p99_ms} ms {load.reasons}", file=sys.stderr, flush=True)
        return load

    return offer


def report(service_ms: float, objective_ms: float, seed: int, found: Capacity) -> dict:
    true = md1.capacity_per_s(service_ms, objective_ms)
    met = crossing(found.probes, objective_ms)
    held_error, met_error = error_of(found.rate_per_s, true), error_of(met and met.rate_per_s, true)
    held = "none | " if held_error is None else f"{found.rate_per_s:.1f} | {held_error:+.1f} %"
    within = met and met.interval
    span = f"{within[0]:.1f} to {within[1]:.1f}" if within else "no interval"
    estimated = f"{met.rate_per_s:.1f} ({span}) | {met_error:+.1f} %" if met else "none | "
    load = true * service_ms / 1000
    print(f"| {objective_ms:g} ms | {load:.2f} | {true:.1f} | {estimated} | {held} | {len(found.probes)} |", flush=True)
    return {
        "service_ms": service_ms,
        "objective_ms": objective_ms,
        "seed": seed,
        "true": true,
        "held_error_percent": held_error,
        "estimate_error_percent": met_error,
        "estimate": met and asdict(met),
        **asdict(found),
    }


def error_of(rate: float | None, true: float) -> float | None:
    return None if rate is None else 100 * (rate - true) / true


def summed_up(rows: list[dict]) -> None:
    print()
    for key, what in (("estimate_error_percent", "estimates"), ("held_error_percent", "rates that passed twice")):
        errors = np.array([row[key] for row in rows if row[key] is not None])
        inside = int((np.abs(errors) <= 5).sum())
        print(f"{inside} of {len(rows)} {what} are within 5 % of the analytic capacity; ", end="")
        print(
            f"error {errors.mean():+.2f} % on average, {errors.min():+.1f} to {errors.max():+.1f} %."
            if errors.size
            else "there is no other."
        )
    told = [row for row in rows if row["estimate"] and row["estimate"]["low"] is not None]
    covered = sum(row["estimate"]["low"] <= row["true"] <= row["estimate"]["high"] for row in told)
    between = sum((row["low"] or 0) <= row["true"] <= (row["high"] or np.inf) for row in rows)
    alone = sum(row["estimate"] is not None for row in rows) - len(told)
    print(f"{alone} of {len(rows)} estimates have no interval, and count among those of other searches only.")
    print(
        f"{covered} of {len(told)} intervals of estimates hold it; of the spans from the largest rate that held to the"
    )
    print(f"smallest that did not, {between} of {len(rows)} do.")
    probes = [len(row["probes"]) for row in rows]
    print(f"{np.mean(probes):.1f} probes a search, {max(probes)} at most.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each probe")
    parser.add_argument("--rounds", type=int, default=1, help="searches an objective against the real server")
    parser.add_argument("--simulated", type=int, default=0, help="searches an objective of simulated queues instead")
    parser.add_argument("--tolerance", type=float, default=0.03)
    parser.add_argument("--start", type=float, default=START_PER_S, help="first rate, requests/s")
    parser.add_argument("--service-ms", type=float, default=SERVICE_MS, help="of the known server (default: 2)")
    parser.add_argument(
        "--objective", type=float, action="append", help="p99 in ms, may be repeated (default: 5, 10, 20 service times)"
    )
    parser.add_argument("--attempts", type=int, default=3, help="tries of a load that the generator sent late")
    parser.add_argument("--out", type=Path, help="write every probe as JSON")
    options = parser.parse_args()
    rows: list[dict] = []
    print(
        "| p99 objective | utilisation | analytic /s | estimated /s (95 %) | error | passed twice /s | error | probes |"
    )
    print("|" + " --- |" * 8)
    for seed in range(options.simulated or options.rounds):
        for objective_ms in options.objective or [times * options.service_ms for times in OBJECTIVES]:
            if options.simulated:
                offer = simulated(options.service_ms, options.seconds, seed)
                found = find(offer, objective_ms, options.tolerance, options.start)
            else:
                with known_server(options.service_ms) as port:
                    offer = real(port, options.seconds, seed, options.attempts)
                    found = find(offer, objective_ms, options.tolerance, options.start)
            rows.append(report(options.service_ms, objective_ms, seed, found))
    summed_up(rows)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
