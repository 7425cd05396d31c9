"""A load generator that sends nothing and writes what the real one would: toy_locust.py MODE steady.py OPTIONS...

The servers that it plays have a capacity: over 300 requests/s every answer takes 60 ms.

Modes: valid, queue (answers take 1 / (1 - rate / 400) times as long instead), invalid (the generator was busy),
late-once (no percentile counts the first time in a folder), hang (until it is ended), refuse (exit code 2), crash (no
summary), crash-once (the first one beside a folder of runs), nospace (exit code 3).
"""

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

KEPT = Path(__file__).resolve().parents[2] / "build" / "toy-loads"
"""Loads by what they depend on: to write one takes longer than all the rest of this program."""
MODE, OPTIONS = sys.argv[1], sys.argv[3:]


def option(name: str, default: str = "") -> str:
    return OPTIONS[OPTIONS.index(name) + 1] if name in OPTIONS else default


out = Path(option("--out"))
endings = {"refuse": ("--rate must be over 0, not 0.", 2), "crash": ("what now", 1), "nospace": ("no space left", 3)}
if MODE == "crash-once":
    try:
        (out.parents[3] / "crashed").touch(exist_ok=False)
        MODE = "crash"
    except FileExistsError:
        MODE = "valid"
if MODE in endings:
    line, code = endings[MODE]
    print(line)
    sys.exit(code)
if MODE == "hang":
    if start_file := option("--start-file"):
        Path(f"{start_file}.ready").touch()
    (out / "hanging").touch()
    time.sleep(600)


def write(folder: Path, fault: str) -> None:
    """samples.parquet and summary.json of the load that the options ask for."""
    import json

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rate, duration_s = float(option("--rate", "100")), float(option("--duration"))
    count = int(rate * duration_s)
    scheduled = 10**12 + np.arange(count, dtype=np.int64) * int(1e9 / rate)
    base_ns = 3_000_000 if option("--engine") == "savedmodel" else 9_000_000
    noise_ns = np.random.default_rng(int(option("--seed"))).integers(0, 10**6, count)
    latency_ns = (60_000_000 if rate > 300 else base_ns) + noise_ns
    if MODE == "queue":
        waiting = 1 / (1 - min(rate, 399) / 400)
        latency_ns = ((base_ns + noise_ns) * waiting).astype(np.int64)
    table = {
        "scheduled_ns": scheduled,
        "done_ns": scheduled + latency_ns,
        "sent_ns": scheduled,
        "sent_bytes": np.full(count, 700, np.int32),
        "received_bytes": np.full(count, 250, np.int32),
        "endpoint": np.arange(count, dtype=np.int16) % len(option("--host").split(",")),
        "outcome": pa.array(["ok"] * count).dictionary_encode(),
        "images": np.ones(count, np.int16),
        "warmup": np.zeros(count, bool),
    }
    pq.write_table(pa.table(table), folder / "samples.parquet")
    reasons = ["the generator was busy: 90% of a core, over 80%"] if fault == "busy" else []
    quantiles = {"p50": float(np.quantile(latency_ns, 0.5)) / 1e6, "p99": float(np.quantile(latency_ns, 0.99)) / 1e6}
    summary = {
        "valid": not reasons,
        "reasons": reasons,
        "scheduled": count,
        "ok": count,
        "dropped": 0,
        "wrong_answers": 0,
        "errors": {},
        "latency_ms": {"p50": None, "p99": None} if fault == "late" else quantiles,
        "figures": {name: {"counts": fault != "late"} for name in quantiles},
        "service_ms": quantiles,
        "lag_ms": {"p99": 5.0 if fault else 0.1},
        "images_per_s": count * int(option("--images-per-request", "1")) / duration_s,
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def load(fault: str) -> Path:
    """The folder of such a load, which is written where it is the first."""
    asked = ("--rate", "--duration", "--engine", "--seed", "--images-per-request")
    hosts = len(option("--host").split(","))
    told = f"{MODE == 'queue'} {fault} {hosts} {[option(name) for name in asked]} {Path(__file__).read_text()}"
    folder = KEPT / hashlib.sha256(told.encode()).hexdigest()
    if not folder.exists():
        part = folder.with_name(f"{os.getpid()}.part")
        part.mkdir(parents=True)
        write(part, fault)
        try:
            part.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    return folder


def put_into_turns(start_file: Path) -> None:
    """Wait for the start as the real one does, and move the samples to the turns that --turns names."""
    import json

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    Path(f"{start_file}.ready").touch()
    while not start_file.exists():
        time.sleep(0.01)
    start_ns = int(start_file.read_text())
    turns = [turn for turn in json.loads(Path(option("--turns")).read_text())["turns"] if turn["length_s"]]
    table = pq.read_table(out / "samples.parquet")
    scheduled, done = (table[name].to_numpy() for name in ("scheduled_ns", "done_ns"))
    since_ns = scheduled - scheduled[0]
    length_ns = round(turns[0]["length_s"] * 1e9)
    begins_ns = np.array([round((turn["begin_s"] + turn["lead_s"]) * 1e9) for turn in turns])
    moved = start_ns + begins_ns[since_ns // length_ns] + since_ns % length_ns
    for name, values in {"scheduled_ns": moved, "sent_ns": moved, "done_ns": moved + (done - scheduled)}.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, out / "samples.parquet")


late = MODE == "late-once" and not list(out.glob("attempt-*"))
fault = "busy" if MODE == "invalid" else "late" if late else ""
for file in load(fault).iterdir():
    shutil.copyfile(file, out / file.name)
if option("--turns"):
    put_into_turns(Path(option("--start-file")))
sys.exit(4 if fault else 0)
