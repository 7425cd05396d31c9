"""This build against the build before: CPU of the generator, savedmodel-server and `--help`, in alternating rounds.

    .venv/bin/python benchmarks/builds/run.py --before ../before [--rounds 9] [--loads 5] [--seconds 5] [--only help]

`--before` is a checkout of the build before with its own `.venv`
(`git worktree add ../before REV; make -C ../before venv`).
Servers run on core 0, clients on core 1. Within a round both builds are measured alternately, each `--loads` times; the
median of a build's loads is its figure of the round. The next round begins with the other build. Printed for each
figure: the median of each build, and the ratio this/before as the geometric mean over rounds with its 95 % interval
(Student's t on logarithms). The generator's rounds need nginx.
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
from collections.abc import Callable
from pathlib import Path

import psutil
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "loadgen"), str(ROOT / "benchmarks" / "savedmodel_server")]

import run as loadgen  # noqa: E402  # benchmarks/loadgen/run.py
import servers  # noqa: E402

SERVER_CPU, CLIENT_CPU = 0, 1
IN_FLIGHT = 32
HELPS = 10


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, **servers.ENVIRONMENT, "PYTHONPATH": str(tree)}


def python(tree: Path) -> str:
    return str(tree / ".venv" / "bin" / "python")


def generator(tree: Path, seconds: float) -> float:
    """Microseconds of CPU a request, closed loop, small reply; the generator's own account."""
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
    return 1e6 * summary["cpu_share"] * summary["duration_s"] / summary["ok"]


def server(kind: str, batching: bool) -> Callable[[Path, float], float]:
    """Milliseconds of CPU an image in savedmodel-server, with 32 requests in flight in batches, or one without."""
    contender = next(c for c in servers.SERVERS if c.kind == kind)

    def measure(tree: Path, seconds: float) -> float:
        model = ROOT / "build" / "models" / "cnn"
        with servers.started(contender, model, SERVER_CPU, batching=batching, tree=tree) as (port, pid):
            process = psutil.Process(pid)
            in_flight = IN_FLIGHT if batching else 1
            contender.client(port, model, in_flight, 1.0, CLIENT_CPU)
            before = process.cpu_times()
            answered = contender.client(port, model, in_flight, seconds, CLIENT_CPU)
            after = process.cpu_times()
        if answered["errors"]:
            raise SystemExit(f"{tree}: {answered['errors']} wrong answers over {kind}.")
        return 1e3 * (after.user + after.system - before.user - before.system) / answered["count"]

    return measure


def help_page(tree: Path, seconds: float) -> float:
    """Seconds of CPU for `servestorm --help`, the mean of ten."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(HELPS):
        subprocess.run([str(tree / ".venv" / "bin" / "servestorm"), "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / HELPS


FIGURES: dict[str, tuple[str, Callable[[Path, float], float]]] = {
    "help": ("`servestorm --help`, CPU s", help_page),
    "generator": ("generator, closed loop, CPU us a request", generator),
    "rest": ("savedmodel-server, REST, one in flight, CPU ms an image", server("rest", batching=False)),
    "grpc": ("savedmodel-server, gRPC, one in flight, CPU ms an image", server("grpc", batching=False)),
    "rest-batches": ("savedmodel-server, REST, 32 in flight, batches, CPU ms an image", server("rest", batching=True)),
    "grpc-batches": ("savedmodel-server, gRPC, 32 in flight, batches, CPU ms an image", server("grpc", batching=True)),
}


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
    values: dict[str, dict[str, list[float]]] = {name: {"this": [], "before": []} for name in options.only}
    begin = cpu_jiffies()
    for number in range(options.rounds):
        order = list(trees) if number % 2 else list(trees)[::-1]
        for name in options.only:
            loads: dict[str, list[float]] = {build: [] for build in order}
            for build in order * options.loads:
                loads[build].append(FIGURES[name][1](trees[build], options.seconds))
            for build, measured in loads.items():
                values[name][build].append(statistics.median(measured))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    print(f"steal {100 * stolen_share(begin, cpu_jiffies()):.1f} % of the CPU time of these rounds")
    for name, builds in values.items():
        ratio, low, high = interval([a / b for a, b in zip(builds["this"], builds["before"], strict=True)])
        medians = ", ".join(f"{build} {statistics.median(rounds):.4g}" for build, rounds in builds.items())
        print(f"{FIGURES[name][0]}: {medians}; ratio {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f}")
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
