"""How fast and how truthful the load generator is, beside its peers, in interleaved rounds.

    .venv/bin/python benchmarks/loadgen/run.py --rounds 5 --out build/loadgen.json

The server runs on one core, the generator on another. Every figure is the median over rounds; the ratios are taken
within each round, so that a slow minute of the machine hits both sides. Nothing here is a test: the targets are printed
beside the figures, reached or not.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import tools

from loadtests.generator.keep_awake import KeptAwake

Figures = dict[str, float]
_CONNECTIONS = 32


@contextmanager
def pinned_server(command: list[str]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        ["taskset", "-c", str(tools.SERVER_CORE), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx() -> Iterator[int]:
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        config = Path(folder) / "nginx.conf"
        text = (tools.HERE / "nginx.conf").read_text().replace("PORT", str(port))
        config.write_text(f"pid {folder}/pid;\nerror_log {folder}/error.log;\n{text}")
        with pinned_server(["nginx", "-p", folder, "-c", str(config)]):
            _wait_for(port)
            yield port


@contextmanager
def known(*options: str) -> Iterator[tuple[int, int]]:
    """Port and start (monotonic ns) of a known server, whose core is kept awake.

    On a virtual machine a core that sleeps returns milliseconds late: the server would not be what it claims to be,
    for whichever tool asks it.
    """
    command = [sys.executable, str(tools.ROOT / "tests" / "stand_ins" / "known_server.py"), *options]
    with awake(tools.SERVER_CORE), pinned_server(command) as process:
        port, start_ns = map(int, process.stdout.readline().split())
        yield port, start_ns


@contextmanager
def awake(core: int) -> Iterator[None]:
    """A process of idle priority spins on the core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        spinner = KeptAwake()
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield
    finally:
        spinner.close()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("nginx did not start: see its error log.")


def closed_loop(seconds: float) -> Figures:
    """Requests/s a core, small reply; ours records every sample."""
    with nginx() as port:
        found = {
            "servestorm": tools.servestorm(port, seconds, "--closed-loop", str(_CONNECTIONS), "--warmup", "1"),
            "HttpUser": tools.locust(port, seconds, "HttpUser", users=_CONNECTIONS),
            "FastHttpUser": tools.locust(port, seconds, "FastHttpUser", users=_CONNECTIONS),
            "hey": tools.hey(port, seconds, workers=_CONNECTIONS),
            "ab": tools.ab(port, seconds, workers=_CONNECTIONS),
            "wrk": tools.wrk(port, seconds, workers=_CONNECTIONS),
        }
    rates = {name: outcome.requests / outcome.wall_s for name, outcome in found.items()}
    ratios = {f"ratio to {name}": rates["servestorm"] / rate for name, rate in rates.items() if name != "servestorm"}
    return {**{f"{name} requests/s": rate for name, rate in rates.items()}, **ratios}


def large_body(seconds: float) -> Figures:
    """CPU microseconds a request with a 60 KB body, start-up left out."""
    size = 60_000

    def stock(port: int, user: str) -> tools.Outcome:
        runs = [tools.locust(port, s, user, users=_CONNECTIONS, body=size) for s in (2, 2 + seconds)]
        return tools.beyond_start(*runs)

    with nginx() as port:
        found = {
            "servestorm": tools.servestorm(
                port, seconds, "--closed-loop", str(_CONNECTIONS), "--warmup", "1", body=size
            ),
            "HttpUser": stock(port, "HttpUser"),
            "FastHttpUser": stock(port, "FastHttpUser"),
            "hey": tools.hey(port, seconds, workers=_CONNECTIONS, body=size),
            "ab": tools.ab(port, seconds, workers=_CONNECTIONS, body=size),
            "wrk": tools.wrk(port, seconds, workers=_CONNECTIONS, body=size),
        }
    cpu_us = {name: outcome.cpu_us() for name, outcome in found.items()}
    ratios = {f"ratio to {name}": cpu_us["servestorm"] / us for name, us in cpu_us.items() if name != "servestorm"}
    return {**{f"{name} us": us for name, us in cpu_us.items()}, **ratios}


def fixed_latency(rate: int, seconds: float) -> Figures:
    """Reported percentiles minus the truth, an exact 5 ms, and the generator's own health."""
    with known("--fixed-ms", "5") as (port, _):
        ours = tools.servestorm(port, seconds, "--rate", str(rate), "--warmup", "2")
        late_ms = _lateness_ms(port)
    with known("--fixed-ms", "5") as (port, _):
        floor_ms = tools.busy_client(port, min(seconds, 10))
    with known("--fixed-ms", "5") as (port, _):
        hey = tools.hey(port, min(seconds, 10), workers=max(20, rate // 50), rate=rate)
    with known("--fixed-ms", "5") as (port, _):
        fast = tools.locust(port, min(seconds, 10), "FastHttpUser", users=max(20, rate // 50), rate=rate)
    return {
        "p50 error ms": ours.p50_ms - 5,
        "p99 error ms": ours.p99_ms - 5,
        "the server's own lateness, p50 ms": float(np.quantile(late_ms, 0.5)),
        "the server's own lateness, p99 ms": float(np.quantile(late_ms, 0.99)),
        "floor: busy client p50 error ms": float(np.quantile(floor_ms, 0.5)) - 5,
        "floor: busy client p99 error ms": float(np.quantile(floor_ms, 0.99)) - 5,
        "hey p99 error ms": hey.p99_ms - 5,
        "FastHttpUser p99 error ms": fast.p99_ms - 5,
        "lag p99 ms": ours.summary["lag_ms"]["p99"],
        "achieved / offered": ours.summary["achieved_rate"] / ours.summary["offered_rate"],
        "cpu share": ours.summary["cpu_share"],
        "valid": float(ours.summary["valid"]),
    }


def low_rate(seconds: float) -> Figures:
    """Achieved over offered at 200/s."""
    with known("--fixed-ms", "5") as (port, _):
        ours = tools.servestorm(port, seconds, "--rate", "200", "--warmup", "1")
    return {"achieved / offered": ours.summary["achieved_rate"] / ours.summary["offered_rate"]}


def variability(seconds: float) -> Figures:
    """Coefficient of variation of the gaps that the server saw, over that of the schedule that was asked for."""
    figures: Figures = {}
    for name, options in {
        "constant": ["--arrivals", "constant"],
        "poisson": ["--arrivals", "poisson"],
        "gamma 3": ["--arrivals", "gamma", "--cv", "3"],
    }.items():
        with known("--fixed-ms", "1") as (port, _):
            tools.servestorm(port, seconds, *options, "--rate", "500", "--warmup", "0", "--seed", "7")
            gaps = np.diff(np.sort(_truth(port)[:, 0]))
        figures[f"CV {name}"] = float(gaps.std() / gaps.mean())
    return figures


def queue(seconds: float) -> Figures:
    """M/D/1 at utilisation 0.8: reported latency minus the queue that these very arrivals made in the server."""
    with known("--queue-ms", "2") as (port, _):
        ours = tools.servestorm(port, seconds, "--arrivals", "poisson", "--rate", "400", "--warmup", "0")
        truth = _truth(port)
        late_ms = _lateness_ms(port)
    waited_ms = (truth[:, 1] - truth[:, 0]) / 1e6
    return {
        "mean error ms": ours.mean_ms - float(waited_ms.mean()),
        "p99 error ms": ours.p99_ms - float(np.quantile(waited_ms, 0.99, method="inverted_cdf")),
        "the server's own lateness, mean ms": float(late_ms.mean()),
        "true mean ms": float(waited_ms.mean()),
        "true p99 ms": float(np.quantile(waited_ms, 0.99, method="inverted_cdf")),
    }


def stall(seconds: float) -> Figures:
    """1 s of stall in every 5 s at 200/s, against an ideal open-loop client: mean and p95."""
    with tempfile.TemporaryDirectory() as folder, known("--stall-every", "5", "--stall-for", "1") as (port, start_ns):
        ours = tools.servestorm(port, seconds, "--rate", "200", "--warmup", "0", keep=Path(folder))
        scheduled = pq.read_table(Path(folder) / "samples.parquet", columns=["scheduled_ns"])["scheduled_ns"].to_numpy()
    into_s = (scheduled - start_ns) / 1e9 % 5
    ideal_ms = np.where(into_s > 4, (5 - into_s) * 1e3, 0.0)
    with known("--stall-every", "5", "--stall-for", "1") as (port, _):
        hey = tools.hey(port, seconds, workers=20, rate=200)
    with known("--stall-every", "5", "--stall-for", "1") as (port, _):
        fast = tools.locust(port, seconds, "FastHttpUser", users=20, rate=200)
    mean, p95 = float(ideal_ms.mean()), float(np.quantile(ideal_ms, 0.95, method="inverted_cdf"))
    return {
        "mean / ideal": ours.mean_ms / mean,
        "p95 / ideal": ours.p95_ms / p95,
        "hey mean / ideal": hey.mean_ms / mean,
        "FastHttpUser mean / ideal": fast.mean_ms / mean,
        "hey p95 / ideal": hey.p95_ms / p95,
        "FastHttpUser p95 / ideal": fast.p95_ms / p95,
    }


def _lateness_ms(port: int) -> np.ndarray:
    """By how much the known server's answers left after they were due: the machine's doing, and no generator's."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/lateness") as reply:
        return np.frombuffer(reply.read(), np.int64) / 1e6


def _truth(port: int) -> np.ndarray:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/truth") as reply:
        return np.frombuffer(reply.read(), np.int64).reshape(-1, 2)


_WATCH_A_CORE = """
import sys, time
seconds = float(sys.argv[1])
begin = last = time.monotonic_ns()
gaps = []
while last - begin < seconds * 1e9:
    now = time.monotonic_ns()
    if now - last > 300_000:
        gaps.append((now - last) / 1e6)
    last = now
print(sum(gaps), max(gaps, default=0.0))
"""


def machine(seconds: float) -> Figures:
    """What no generator can mend: moments over 0.3 ms in which a busy core was not ours, both cores at once."""
    cores = {"server": tools.SERVER_CORE, "generator": tools.GENERATOR_CORE}
    command = [sys.executable, "-I", "-c", _WATCH_A_CORE, str(seconds)]
    watches = {
        name: subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.PIPE, text=True)
        for name, core in cores.items()
    }
    figures: Figures = {}
    for name, watch in watches.items():
        lost_ms, longest_ms = map(float, watch.communicate()[0].split())
        figures[f"{name}'s core taken away, % of time"] = lost_ms / seconds / 10
        figures[f"{name}'s core taken away, longest ms"] = longest_ms
    return figures


CASES: dict[str, Callable[[], Figures]] = {
    "the machine itself": lambda: machine(10),
    "closed loop, small reply": lambda: closed_loop(5),
    "closed loop, 60 KB body": lambda: large_body(5),
    "open loop 200/s": lambda: low_rate(20),
    "open loop 1,000/s against 5 ms": lambda: fixed_latency(1000, 20),
    "open loop 5,000/s against 5 ms": lambda: fixed_latency(5000, 20),
    "variability": lambda: variability(20),
    "M/D/1 at 0.8": lambda: queue(20),
    "stall": lambda: stall(20),
}

TARGETS: dict[tuple[str, str], tuple[str, float]] = {
    ("closed loop, small reply", "ratio to FastHttpUser"): (">=", 8),
    ("closed loop, small reply", "ratio to hey"): (">=", 2),
    ("closed loop, small reply", "ratio to wrk"): (">=", 0.5),
    ("closed loop, 60 KB body", "ratio to FastHttpUser"): ("<=", 0.2),
    ("closed loop, 60 KB body", "ratio to hey"): ("<=", 0.5),
    **{
        (f"open loop {rate}/s against 5 ms", figure): ("<=", limit)
        for rate in ("1,000", "5,000")
        for figure, limit in (("p50 error ms", 0.15), ("p99 error ms", 0.5))
    },
    ("open loop 1,000/s against 5 ms", "lag p99 ms"): ("<=", 0.5),
    **{
        (case, "achieved / offered"): ("1 +-", 0.005)
        for case in ("open loop 200/s", "open loop 1,000/s against 5 ms", "open loop 5,000/s against 5 ms")
    },
    ("variability", "CV constant"): ("<=", 0.1),
    ("variability", "CV poisson"): ("1 +-", 0.05),
    ("variability", "CV gamma 3"): ("3 +-", 0.15),
    ("M/D/1 at 0.8", "mean error ms"): ("<=", 0.15),
    ("M/D/1 at 0.8", "p99 error ms"): ("<=", 0.5),
    ("stall", "mean / ideal"): ("1 +-", 0.02),
    ("stall", "p95 / ideal"): ("1 +-", 0.02),
}


def reached(rule: str, limit: float, value: float) -> bool:
    if rule == ">=":
        return value >= limit
    if rule == "<=":
        return abs(value) <= limit
    return abs(value - float(rule.partition(" ")[0])) <= limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=[*CASES], help="run only this case (may be repeated)")
    parser.add_argument("--out", type=Path, help="write every round's figures as JSON")
    options = parser.parse_args()
    tools.require_tools()
    rounds: dict[str, list[Figures]] = {name: [] for name in options.only or CASES}
    for number in range(options.rounds):
        for name in rounds:
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            rounds[name].append(CASES[name]())
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(rounds, indent=1))
    print_table(rounds)


def print_table(rounds: dict[str, list[Figures]]) -> None:
    print("| case | figure | median | least | most | target |\n| --- | --- | --- | --- | --- | --- |")
    for case, found in rounds.items():
        for figure in list(found[0]):
            values = [figures[figure] for figures in found]
            target = TARGETS.get((case, figure))
            middle = median(values)
            verdict = (
                f"{target[0]} {target[1]:g}: {'reached' if reached(*target, middle) else 'MISSED'}" if target else ""
            )
            print(f"| {case} | {figure} | {middle:.4g} | {min(values):.4g} | {max(values):.4g} | {verdict} |")


if __name__ == "__main__":
    main()
