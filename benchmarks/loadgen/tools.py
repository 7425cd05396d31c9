"""The load generators that are compared: how each is started, and what it says of itself."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GENERATOR_CORE = max(os.sched_getaffinity(0))
SERVER_CORE = min(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Outcome:
    """One run of one tool; None where the tool does not tell."""

    requests: int
    cpu_s: float
    wall_s: float
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    samples: Path | None = None
    summary: dict | None = None

    def cpu_us(self) -> float:
        """CPU microseconds a request, start-up left out where `cpu_s` leaves it out."""
        return self.cpu_s / self.requests * 1e6


def run_pinned(command: list[str], env: dict[str, str] | None = None, cwd: str | None = None) -> tuple[str, float]:
    """Output and CPU seconds (user and system, children included) of a command on the generator's core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["taskset", "-c", str(GENERATOR_CORE), *command],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout + done.stderr, cpu_s


_BUSY_CLIENT = """
import socket, sys, time
port, seconds = int(sys.argv[1]), float(sys.argv[2])
link = socket.create_connection(("127.0.0.1", port))
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
link.setblocking(False)
request = b"GET / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n"
due, end = time.monotonic_ns() + 10**7, time.monotonic_ns() + int(seconds * 1e9)
while due < end:
    while time.monotonic_ns() < due:
        pass
    link.send(request)
    while True:
        try:
            link.recv(65536)
            break
        except BlockingIOError:
            pass
    print((time.monotonic_ns() - due) / 1e6)
    due = max(due + 7 * 10**6, time.monotonic_ns())
"""


def busy_client(port: int, seconds: float) -> list[float]:
    """Latencies (ms) that a client sees which never sleeps and asks one thing at a time: what no tool can better."""
    text, _ = run_pinned([sys.executable, "-I", "-c", _BUSY_CLIENT, str(port), str(seconds)])
    return [float(line) for line in text.split()]


def servestorm(
    port: int, seconds: float, *options: str, body: int = 0, keep: Path | None = None, tree: Path = ROOT
) -> Outcome:
    """loadtests/steady.py of a tree; its CPU is the process's own account of the measured time."""
    with tempfile.TemporaryDirectory() as folder:
        out = keep or Path(folder) / "out"
        command = [sys.executable, "-m", "locust", "-f", str(tree / "loadtests" / "steady.py"), "--headless"]
        command += ["--only-summary", "--host", f"http://127.0.0.1:{port}", "--engine", "http", "--out", str(out)]
        command += ["--duration", str(seconds), *options]
        if body:
            path = Path(folder) / "body"
            path.write_bytes(b"x" * body)
            command += ["--http-method", "POST", "--http-body-file", str(path)]
        output, _ = run_pinned(command, {"PYTHONPATH": str(tree)}, cwd=folder)
        try:
            summary = json.loads((out / "summary.json").read_text())
        except FileNotFoundError:
            raise SystemExit(output) from None
    latency = summary["latency_ms"]
    return Outcome(
        requests=summary["ok"],
        cpu_s=summary["cpu_share"] * summary["duration_s"],
        wall_s=summary["duration_s"],
        mean_ms=latency["mean"],
        p50_ms=latency["p50"],
        p95_ms=latency["p95"],
        p99_ms=latency["p99"],
        samples=out / "samples.parquet" if keep else None,
        summary=summary,
    )


def locust(port: int, seconds: float, user: str, *, users: int, body: int = 0, rate: float = 0) -> Outcome:
    """Stock Locust; its latencies are the rounded ones that it reports."""
    env = {"BENCH_USER": user, "BENCH_BODY": str(body), "BENCH_RATE_PER_USER": str(rate / users if rate else 0)}
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "peer_locust.py"), "--headless", "--only-summary"]
    command += [
        "--host",
        f"http://127.0.0.1:{port}",
        "-u",
        str(users),
        "-r",
        str(users),
        "-t",
        f"{seconds:g}s",
        "--json",
    ]
    output, cpu_s = run_pinned(command, env)
    stats = json.JSONDecoder().raw_decode(output[output.index("[\n") :])[0][0]
    times = {float(ms): n for ms, n in stats["response_times"].items()}
    return Outcome(
        requests=stats["num_requests"],
        cpu_s=cpu_s,
        wall_s=seconds,
        mean_ms=stats["total_response_time"] / max(stats["num_requests"], 1),
        p50_ms=_quantile(times, 0.5),
        p95_ms=_quantile(times, 0.95),
        p99_ms=_quantile(times, 0.99),
    )


def beyond_start(short: Outcome, long: Outcome) -> Outcome:
    """What a longer run of the same tool did more than a shorter one: its start-up (imports) cancels out."""
    return Outcome(long.requests - short.requests, long.cpu_s - short.cpu_s, long.wall_s - short.wall_s)


def _quantile(times: dict[float, int], q: float) -> float:
    wanted, seen = q * sum(times.values()), 0
    for ms in sorted(times):
        seen += times[ms]
        if seen >= wanted:
            return ms
    return max(times)


def hey(port: int, seconds: float, *, workers: int, body: int = 0, rate: float = 0) -> Outcome:
    """hey: closed loop; with a rate each worker waits for its turn after its reply."""
    with tempfile.NamedTemporaryFile() as file:
        command = ["hey", "-z", f"{seconds:g}s", "-c", str(workers), "-cpus", "1"]
        if rate:
            command += ["-q", f"{rate / workers:g}"]
        if body:
            file.write(b"x" * body)
            file.flush()
            command += ["-m", "POST", "-D", file.name]
        output, cpu_s = run_pinned([*command, f"http://127.0.0.1:{port}/"])
    rate_found = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    total_s = float(re.search(r"Total:\s+([\d.]+) secs", output)[1])
    quantiles = {int(q): float(s) * 1000 for q, s in re.findall(r"(\d+)%+ in ([\d.]+) secs", output)}
    mean = float(re.search(r"Average:\s+([\d.]+) secs", output)[1]) * 1000
    return Outcome(
        requests=round(rate_found * total_s),
        cpu_s=cpu_s,
        wall_s=total_s,
        mean_ms=mean,
        p50_ms=quantiles.get(50),
        p95_ms=quantiles.get(95),
        p99_ms=quantiles.get(99),
    )


def ab(port: int, seconds: float, *, workers: int, body: int = 0) -> Outcome:
    """ApacheBench, keep-alive."""
    with tempfile.NamedTemporaryFile() as file:
        command = ["ab", "-q", "-k", "-t", f"{seconds:g}", "-n", "100000000", "-c", str(workers)]
        if body:
            file.write(b"x" * body)
            file.flush()
            command += ["-p", file.name, "-T", "application/octet-stream"]
        output, cpu_s = run_pinned([*command, f"http://127.0.0.1:{port}/"])
    requests = int(re.search(r"Complete requests:\s+(\d+)", output)[1])
    wall_s = float(re.search(r"Time taken for tests:\s+([\d.]+)", output)[1])
    return Outcome(requests, cpu_s, wall_s)


def wrk(port: int, seconds: float, *, workers: int, body: int = 0) -> Outcome:
    """wrk, one thread."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        command = ["wrk", "-t1", f"-c{workers}", f"-d{seconds:g}s"]
        if body:
            script.write(f'wrk.method = "POST"\nwrk.body = string.rep("x", {body})\n')
            script.flush()
            command += ["-s", script.name]
        output, cpu_s = run_pinned([*command, f"http://127.0.0.1:{port}/"])
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    return Outcome(int(found[1]), cpu_s, float(found[2]))


def require_tools() -> None:
    """Say in one sentence what is missing."""
    packages = {"hey": "hey", "ab": "apache2-utils", "wrk": "wrk", "nginx": "nginx-light", "taskset": "util-linux"}
    missing = [package for tool, package in packages.items() if not shutil.which(tool)]
    if missing:
        raise SystemExit(f"the benchmark needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
    if GENERATOR_CORE == SERVER_CORE:
        raise SystemExit("the benchmark needs 2 cores: one for the server, one for the generator.")
