"""This build against the build before: generator, savedmodel-server and `--help`, in alternating rounds.

    .venv/bin/python benchmarks/builds/run.py --before ../before [--rounds 9] [--loads 5] [--seconds 5] [--only help]

`--before` is a checkout of the build before with its own `.venv`
(`git worktree add ../before REV; make -C ../before venv`).
Servers run on core 0, clients on core 1. Within a round both builds are measured alternately, each `--loads` times; the
median of a build's loads is its figure of the round. The next round begins with the other build. Printed for each
figure: the median of each build, and the ratio this/before as the geometric mean over rounds with its 95 % interval
(Student's t on logarithms). The generator's rounds need nginx. Of savedmodel-server: CPU an image, rate, p50, resident
memory under load, and the start to AVAILABLE with the resident memory after it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "loadgen"), str(ROOT / "benchmarks" / "savedmodel_server")]

import run as loadgen  # noqa: E402  # benchmarks/loadgen/run.py
import servers  # noqa: E402

Measure = Callable[[Path, float], dict[str, float]]
"""Figures of the build in a tree, from a load of so many seconds."""
SERVER_CPU, CLIENT_CPU = 0, 1
IN_FLIGHT = 32
HELPS = 10


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, **servers.ENVIRONMENT, "PYTHONPATH": str(tree)}


def python(tree: Path) -> str:
    return str(tree / ".venv" / "bin" / "python")


def generator(tree: Path, seconds: float) -> dict[str, float]:
    """CPU of a request, closed loop, small reply; the generator's own account."""
    with loadgen.nginx() as port, tempfile.TemporaryDirectory() as folder:
        command = [python(tree), "-m", "locust", "-f", str(tree / "loadtests" / "steady.py"), "--headless"]
        command += ["--only-summary", "--host", f"http://127.0.0.1:{port}", "--engine", "http", "--out", folder]
        command += ["--duration", str(seconds), "--closed-loop", str(IN_FLIGHT), "--warmup", "1"]
        subprocess.run(
            ["taskset", "-c", str(CLIENT_CPU), *command],
            cwd=folder,
            env=environment(tree),
            capture_output=True,
            check=True,
        )
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return {"CPU us a request": 1e6 * summary["cpu_share"] * summary["duration_s"] / summary["ok"]}


def server(kind: str, batching: bool) -> Measure:
    """savedmodel-server with 32 requests in flight in batches, or with one without."""
    contender = next(c for c in servers.SERVERS if c.kind == kind)

    def measure(tree: Path, seconds: float) -> dict[str, float]:
        model = ROOT / "build" / "models" / "cnn"
        with servers.started(contender, model, SERVER_CPU, batching=batching, tree=tree) as (port, pid):
            process = psutil.Process(pid)
            in_flight = IN_FLIGHT if batching else 1
            contender.client(port, model, in_flight, 1.0, CLIENT_CPU)
            before = process.cpu_times()
            answered = contender.client(port, model, in_flight, seconds, CLIENT_CPU)
            after = process.cpu_times()
            resident = process.memory_info().rss
        if answered["errors"]:
            raise SystemExit(f"{tree}: {answered['errors']} wrong answers over {kind}.")
        cpu_s = after.user + after.system - before.user - before.system
        return {
            "CPU ms an image": 1e3 * cpu_s / answered["count"],
            "images/s": answered["rate"],
            "p50 ms": answered["p50_ms"],
            "MiB under load": resident / 2**20,
        }

    return measure


def start(tree: Path, seconds: float) -> dict[str, float]:
    """From the start of savedmodel-server's process to the log line that its model is available, and what it holds."""
    command = [python(tree), "-m", "serving.savedmodel_server", "--model_name=cnn"]
    command += [f"--model_base_path={ROOT / 'build' / 'models' / 'cnn'}"]
    command += [f"--rest_api_port={servers.free_port()}", f"--port={servers.free_port()}"]
    pinned, settings = ["taskset", "-c", str(SERVER_CPU), *command], environment(tree)
    began_s = time.monotonic()
    process = subprocess.Popen(pinned, cwd=tree, stderr=subprocess.PIPE, text=True, env=settings)
    assert process.stderr is not None
    try:
        available_s = seen_s(process.stderr, "event=available", began_s)
        seen_s(process.stderr, "event=listening", began_s)
        resident = psutil.Process(process.pid).memory_info().rss
    finally:
        process.terminate()
        process.communicate()
    return {"s to AVAILABLE": available_s, "MiB after it": resident / 2**20}


def seen_s(log: Iterable[str], event: str, began_s: float) -> float:
    """Seconds since `began_s` (monotonic) at which the log has the event."""
    for line in log:
        if event in line:
            return time.monotonic() - began_s
    raise SystemExit(f"savedmodel-server ended before {event}.")


def help_page(tree: Path, seconds: float) -> dict[str, float]:
    """Of `servestorm --help`, the mean of ten."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(HELPS):
        subprocess.run([str(tree / ".venv" / "bin" / "servestorm"), "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"CPU s": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / HELPS}


FIGURES: dict[str, tuple[str, Measure]] = {
    "help": ("`servestorm --help`", help_page),
    "generator": ("generator, closed loop", generator),
    "start": ("savedmodel-server, start", start),
    "rest": ("savedmodel-server, REST, one in flight", server("rest", batching=False)),
    "grpc": ("savedmodel-server, gRPC, one in flight", server("grpc", batching=False)),
    "rest-batches": ("savedmodel-server, REST, 32 in flight, batches", server("rest", batching=True)),
    "grpc-batches": ("savedmodel-server, gRPC, 32 in flight, batches", server("grpc", batching=True)),
}
"""What is measured, each of which gives several figures by their units."""


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout of the build before, with its .venv")
    parser.add_argument("--rounds", type=int, default=9, help="(default: 9)")
    parser.add_argument("--loads", type=int, default=1, help="of each build in a round (default: 1)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: 5)")
    parser.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES), help="figures (default: all)")
    parser.add_argument("--out", type=Path, help="every round as JSON")
    options = parser.parse_args()
    trees = {"this": ROOT, "before": options.before.resolve()}
    values: dict[str, dict[str, list[float]]] = {}
    begin = cpu_jiffies()
    for number in range(options.rounds):
        order = list(trees) if number % 2 else list(trees)[::-1]
        for name in options.only:
            loads: dict[str, list[dict[str, float]]] = {build: [] for build in order}
            for build in order * options.loads:
                loads[build].append(FIGURES[name][1](trees[build], options.seconds))
            for build, measured in loads.items():
                for unit in measured[0]:
                    label = f"{FIGURES[name][0]}, {unit}"
                    values.setdefault(label, {"this": [], "before": []})[build].append(
                        statistics.median(load[unit] for load in measured)
                    )
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    print(f"steal {100 * stolen_share(begin, cpu_jiffies()):.1f} % of the CPU time of these rounds")
    for figure, builds in values.items():
        ratio, low, high = interval([a / b for a, b in zip(builds["this"], builds["before"], strict=True)])
        medians = ", ".join(f"{build} {statistics.median(rounds):.4g}" for build, rounds in builds.items())
        print(f"{figure}: {medians}; ratio {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    if options.out:
        options.out.write_text(json.dumps(values, indent=1))
    return 0


def cpu_jiffies() -> list[int]:
    """The first line of /proc/stat."""
    return [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


def stolen_share(begin: list[int], end: list[int]) -> float:
    """Steal over all CPU time."""
    spent = [after - before for before, after in zip(begin, end, strict=True)]
    return spent[7] / sum(spent[:8])


if __name__ == "__main__":
    sys.exit(main())
