"""Record what a machine does to two engines that stand side by side: the noise that the simulations here resample.

    python benchmarks/calibration/record_noise.py --rounds 9 [--raw build/noise] [--noise FILE.npz]

In each round both engines start at once on the engine's core. Slices of constant load then alternate between them in
random order, with gaps, and at the end both are loaded at once ("duet"). Every request has its scheduled, sent and done
time; /proc/stat and the CPU time of servers and generators are read four times a second. About 90 s a round.

The raw files stay in --raw, and a round that lies there whole is not recorded again. At the end all of them are packed
into --noise (README.md beside it names the arrays). `--pack-only` packs what was recorded before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
PORTS = {"savedmodel": 18501, "torchserve": 18601}
READY = {"savedmodel": "/v1/models/cnn", "torchserve": "/ping"}
ENGINE_CORE, GENERATOR_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
FIRST_S, WARM_UP_S, BEFORE_DUET_S, AFTER_S = 1.0, 1.2, 1.0, 0.5
SETTLE_S, START_LIMIT_S, READING_S = 4.0, 60.0, 0.25
STEAL = 7
"""Column of /proc/stat after the name of the core: user, nice, system, idle, iowait, irq, softirq, steal."""
IDLE = (3, 4)
DUET = 255
"""Slice number of a request under the load of both."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds to have in the end (default: 9)")
    parser.add_argument("--slices", type=int, default=14, help="slices of each engine in a round (default: 14)")
    parser.add_argument("--slice-s", type=float, default=1.5, help="length of a slice (default: 1.5)")
    parser.add_argument("--gap-s", type=float, default=0.6, help="without load after each slice (default: 0.6)")
    parser.add_argument("--duet-s", type=float, default=10.0, help="of load on both at once (default: 10)")
    parser.add_argument("--rate", type=float, default=70.0, help="requests a second (default: 70)")
    parser.add_argument("--seed", type=int, default=1000, help="of the order of the slices")
    parser.add_argument("--raw", type=Path, default=Path("build/noise"), help="folder of the raw files")
    parser.add_argument("--noise", type=Path, default=ROOT / "benchmarks/calibration/recorded/noise.npz")
    parser.add_argument("--pack-only", action="store_true", help="record nothing")
    options = parser.parse_args()
    for number in range(0 if options.pack_only else options.rounds):
        folder = (options.raw / f"r{number:02d}").resolve()
        if not (folder / "rec.json").exists():
            record(folder, random.Random(options.seed + number), options)
            print(f"round {number + 1} of {options.rounds}", flush=True)
    pack(sorted(options.raw.glob("r*")), options.noise)
    print(f"{options.noise}: {options.noise.stat().st_size / 1e6:.2f} MB")


def record(folder: Path, order: random.Random, options: argparse.Namespace) -> None:
    """One round; its raw files lie in `folder` then, rec.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = {engine: stack.enter_context(server(engine, folder)) for engine in PORTS}
        wait_ready()
        time.sleep(SETTLE_S)
        turns, duet = turns_of(order, options)
        loads = {
            engine: stack.enter_context(load(engine, folder, times_of(turns[engine], duet, options)))
            for engine in PORTS
        }
        readings = []
        while any(process.poll() is None for process in loads.values()):
            used = [{name: tree_cpu_s(process.pid) for name, process in of.items()} for of in (servers, loads)]
            readings.append((time.monotonic_ns(), cores(), *used))
            time.sleep(READING_S)
    facts = {"turns": turns, "duet": duet, "slice": options.slice_s, "rate": options.rate, "machine": readings}
    (folder / "rec.json").write_text(json.dumps(facts))


def turns_of(order: random.Random, options: argparse.Namespace) -> tuple[dict[str, list[float]], float]:
    """Begin of every slice of each engine, and of the load on both, in seconds of the schedule."""
    turns: dict[str, list[float]] = {engine: [] for engine in PORTS}
    at = FIRST_S + WARM_UP_S + options.gap_s
    for _ in range(options.slices):
        pair = list(PORTS)
        order.shuffle(pair)
        for engine in pair:
            turns[engine].append(at)
            at += options.slice_s + options.gap_s
    return turns, at + BEFORE_DUET_S


def times_of(begins: list[float], duet: float, options: argparse.Namespace) -> list[float]:
    """Arrivals in seconds of the schedule: one at 0, from which its begin is read, a warm-up, the slices, the duet."""
    spans = [(FIRST_S, WARM_UP_S), *((begin, options.slice_s) for begin in begins), (duet, options.duet_s)]
    return [0.0, *(begin + i / options.rate for begin, length in spans for i in range(int(length * options.rate)))]


@contextmanager
def server(engine: str, folder: Path) -> Iterator[subprocess.Popen]:
    program = str(Path(sys.executable).with_name("servestorm"))
    command = [program, "serve", "--engine", engine, "--cpus", str(ENGINE_CORE)]
    with (folder / f"{engine}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(PORTS[engine])], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def wait_ready() -> None:
    end = time.monotonic() + START_LIMIT_S
    while not all(map(is_ready, PORTS)):
        if time.monotonic() > end:
            raise SystemExit(f"the servers were not ready after {START_LIMIT_S:g} s: read their logs in --raw.")
        time.sleep(0.2)


def is_ready(engine: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[engine]}{READY[engine]}", timeout=1) as reply:
            return reply.status == 200
    except OSError:
        return False


@contextmanager
def load(engine: str, folder: Path, times: list[float]) -> Iterator[subprocess.Popen]:
    """The project's generator, which sends at these times of its schedule."""
    out, trace = folder / engine, folder / f"{engine}.csv"
    out.mkdir(exist_ok=True)
    trace.write_text("t\n" + "".join(f"{at:.6f}\n" for at in times))
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests/steady.py"), "--headless"]
    command += ["--host", f"http://127.0.0.1:{PORTS[engine]}", "--engine", engine, "--protocol", "rest"]
    command += ["--model", "cnn", "--payload", "image", "--images-per-request", "1", "--seed", "1"]
    command += ["--manifest", str(ROOT / "build/models/cnn/manifest.json"), "--out", str(out)]
    command += ["--arrivals", "trace", "--trace", str(trace), "--rate", "1", "--warmup", "0"]
    pinned = ["taskset", "-c", str(GENERATOR_CORE), *command, "--duration", f"{times[-1] + AFTER_S:g}"]
    with (out / "log").open("w") as log, subprocess.Popen(pinned, cwd=out, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.terminate()


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and of what it started, to a hundredth."""
    total = 0.0
    try:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            total += times.user + times.system
    except psutil.Error:
        pass
    return total


def cores() -> dict[str, list[int]]:
    """The counters of every core in /proc/stat, in hundredths of a second."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return {name: list(map(int, counters[:8])) for name, *counters in lines if name[:3] == "cpu" and name != "cpu"}


def pack(folders: list[Path], target: Path) -> None:
    """Write all rounds that were recorded whole as one .npz."""
    whole = [folder for folder in folders if (folder / "rec.json").exists()]
    if not whole:
        raise SystemExit("no round was recorded whole: record some without --pack-only.")
    requests, slices = [], []
    for number, folder in enumerate(whole):
        facts = json.loads((folder / "rec.json").read_text())
        for place, engine in enumerate(PORTS):
            table = read_requests(folder / engine / "samples.parquet", facts, engine)
            requests.append({"round": number, "engine": place, **table})
            slices.append({"round": number, "engine": place, **read_slices(folder, facts, engine)})
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        target,
        engines=np.array(list(PORTS)),
        rate_per_s=np.float64(facts["rate"]),
        slice_s=np.float64(facts["slice"]),
        **columns("", requests, {"round": np.uint8, "engine": np.uint8, "slice": np.uint8}, np.int32),
        **columns("slice_", slices, {"round": np.uint8, "engine": np.uint8, "number": np.uint8}, np.float32),
    )


def columns(prefix: str, tables: list[dict], kinds: dict[str, type], other: type) -> dict[str, np.ndarray]:
    """The tables, one under another; a number holds for every row of its table."""
    names = list(tables[0])
    rows = [len(next(value for value in table.values() if isinstance(value, np.ndarray))) for table in tables]
    return {
        prefix + name: np.concatenate(
            [np.broadcast_to(table[name], count) for table, count in zip(tables, rows, strict=True)]
        ).astype(kinds.get(name, other))
        for name in names
    }


def begin_ns(samples: Path) -> int:
    """Begin of a generator's schedule on the monotonic clock: the trace's first request is at 0."""
    return int(pq.read_table(samples, columns=["scheduled_ns"])["scheduled_ns"].to_numpy().min())


def read_requests(samples: Path, facts: dict, engine: str) -> dict[str, np.ndarray]:
    """Slice number, offset in the slice, lag and service time (from the send; -1: no right answer) in microseconds."""
    table = pq.read_table(samples, columns=["scheduled_ns", "sent_ns", "done_ns", "outcome"])
    scheduled, sent, done = (
        table[name].to_numpy().astype(np.float64) for name in ("scheduled_ns", "sent_ns", "done_ns")
    )
    ok = np.array(table["outcome"].cast("string").to_pylist()) == "ok"
    at_s = (scheduled - begin_ns(samples)) / 1e9
    begins = np.array([*facts["turns"][engine], facts["duet"]])
    place = np.searchsorted(begins, at_s + 1e-5, side="right") - 1
    measured = place >= 0
    numbers = np.where(place == len(begins) - 1, DUET, place)
    offset = at_s - begins[np.maximum(place, 0)]
    micro = [1e6 * offset, (sent - scheduled) / 1e3, np.where(ok, (done - sent) / 1e3, -1)]
    named = zip(("offset_us", "lag_us", "service_us"), micro, strict=True)
    return {"slice": numbers[measured], **{name: np.rint(values[measured]) for name, values in named}}


def read_slices(folder: Path, facts: dict, engine: str) -> dict[str, np.ndarray]:
    """Begin of each slice in the round, CPU time of the engine and of the other one meanwhile, and steal."""
    begins_ns = {name: begin_ns(folder / name / "samples.parquet") for name in PORTS}
    zero = min(begins_ns.values())
    begins = np.array([*facts["turns"][engine], facts["duet"]]) + (begins_ns[engine] - zero) / 1e9
    lengths = np.full(len(begins), facts["slice"])
    lengths[-1] = facts["machine"][-1][0] / 1e9 - zero / 1e9 - begins[-1]
    at = np.array([reading[0] for reading in facts["machine"]]) / 1e9 - zero / 1e9
    other = next(name for name in PORTS if name != engine)
    used = {name: np.array([reading[2][name] for reading in facts["machine"]]) for name in PORTS}
    generators = np.array([sum(reading[3].values()) for reading in facts["machine"]])
    counters = np.array([list(reading[1].values()) for reading in facts["machine"]]).sum(axis=1)
    busy_s = (counters.sum(axis=1) - counters[:, [*IDLE, STEAL]].sum(axis=1)) / 100
    # the last reading before the slice, and the first one 0.1 s or more after it: both in gaps
    first = np.maximum(np.searchsorted(at, begins, side="right") - 1, 0)
    last = np.minimum(np.searchsorted(at, begins + lengths + 0.1), len(at) - 1)
    spent = {name: used[name][last] - used[name][first] for name in PORTS}
    own = spent[engine] + spent[other] + generators[last] - generators[first]
    total_s = counters.sum(axis=1)[last] / 100 - counters.sum(axis=1)[first] / 100
    return {
        "number": np.array([*range(len(begins) - 1), DUET]),
        "begin_s": begins,
        "watched_s": at[last] - at[first],
        "cpu_s": spent[engine],
        "idle_cpu_s": spent[other],
        "steal": (counters[last, STEAL] - counters[first, STEAL]) / 100 / total_s,
        "other_load": np.maximum(0, busy_s[last] - busy_s[first] - own) / total_s,
    }


if __name__ == "__main__":
    main()
