"""Figures that need no load: TensorFlow in process, start-up, JSON parsing; and memory under 200,000 requests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from servers import ENVIRONMENT, SERVERS, free_port, running

IN_PROCESS = """
import json, pathlib, sys, time
import numpy as np
from serving.savedmodel_server.versions.servable import ServableOptions, Servable
import tensorflow
model = pathlib.Path(sys.argv[1])
golden = json.loads((model / "manifest.json").read_text())["golden"][0]["path"]
servable = Servable("cnn", 1, model / "1", ServableOptions(intra_op_threads=1, inter_op_threads=1))
signature = servable.signature("")
def ms(rows, calls):
    array = np.array([(model / golden).read_bytes()] * rows, object)
    for _ in range(20): servable.run_alone(signature, (array,), tuple(signature.outputs))
    begin = time.perf_counter()
    for _ in range(calls): servable.run_alone(signature, (array,), tuple(signature.outputs))
    return (time.perf_counter() - begin) / calls * 1e3
print(ms(1, 500), ms(32, 50) / 32)
"""
JSON_PARSE = """
import time
import numpy as np, orjson
from serving.savedmodel_server.rest.json_bodies.fast import FastReader
from serving.savedmodel_server.rest.json_bodies.predict import parse_predict
from serving.savedmodel_server.versions.signatures import Signature, TensorSpec
signature = Signature("s", "", {"x": TensorSpec("x", "x:0", 1, (-1, 32, 32, 3))}, {})
image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
body, reader = orjson.dumps({"instances": image}, option=orjson.OPT_SERIALIZE_NUMPY), FastReader()
def us():
    begin = time.perf_counter()
    for _ in range(500): parse_predict(body, lambda name: signature, reader)
    return (time.perf_counter() - begin) / 500 * 1e6
us()
print(sorted(us() for _ in range(5))[2])
"""


def _run(code: str, cpu: int, *arguments: str) -> list[float]:
    done = subprocess.run(
        ["taskset", "-c", str(cpu), sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip
    return [float(word) for word in done.stdout.split()]


def in_process(model: Path, cpu: int) -> tuple[float, float]:
    """Milliseconds of a call with one row, and of a row in a call with 32, past all of a server."""
    one_ms, each_ms = _run(IN_PROCESS, cpu, str(model))
    return one_ms, each_ms


def json_parse_us(cpu: int) -> float:
    """Microseconds from a JSON body with one 32x32x3 tensor to the array."""
    return _run(JSON_PARSE, cpu)[0]


def start_up_s(model: Path, cpu: int) -> tuple[float, float]:
    """Seconds of `import tensorflow` in a fresh process, and of the server from its start to AVAILABLE."""
    begin = time.monotonic()
    subprocess.run(
        ["taskset", "-c", str(cpu), sys.executable, "-c", "import tensorflow"],
        check=True, stderr=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip
    imported_s = time.monotonic() - begin
    begin = time.monotonic()
    command = [
        sys.executable, "-m", "serving.savedmodel_server", "--model_name=cnn", f"--model_base_path={model}",
        f"--rest_api_port={free_port()}", f"--port={free_port()}",
    ]  # fmt: skip
    process = subprocess.Popen(
        ["taskset", "-c", str(cpu), *command], stderr=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "event=available" in line:
            available_s = time.monotonic() - begin
            break
    else:
        raise SystemExit("the server ended before its model was available")
    process.terminate()
    process.stderr.read()
    process.wait()
    return imported_s, available_s


def memory_growth(model: Path, cpu: int, client_cpu: int) -> float:
    """Resident memory after 200,000 REST requests, divided by that after 2,000."""
    rest = SERVERS[0]
    with running(rest, model, cpu, batching=True) as port:
        server = next(
            process for process in psutil.process_iter(["cmdline"])
            if f"--rest_api_port={port}" in (process.info["cmdline"] or ())
            and "taskset" not in process.info["cmdline"][0]
        )  # fmt: skip
        rest.client(port, model, 32, 0, client_cpu, 2_000)
        first = server.memory_info().rss
        rest.client(port, model, 32, 0, client_cpu, 198_000)
        return server.memory_info().rss / first
