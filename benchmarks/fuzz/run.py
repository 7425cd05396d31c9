"""100,000 damaged requests against savedmodel-server: 0 crashes, 0 unexpected 5xx, memory flat.

    python benchmarks/fuzz/run.py [--inputs 100000] [--seed 0] [--no-schemathesis]

Six tenths go over REST and four tenths over gRPC, damaged as tests/serving/savedmodel_server/mutations.py does; then
schemathesis (installed into build/fuzz, a virtual environment of its own) works through the server's OpenAPI page.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.serving.savedmodel_server import mutations  # noqa: E402
from tests.serving.savedmodel_server.savedmodel_zoo import write_zoo  # noqa: E402
from tests.serving.savedmodel_server.server_process import RunningServer, start_server  # noqa: E402

FUZZ = ROOT / "build" / "fuzz"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CONNECTIONS = 8
FLAT = 1.05
"""Resident memory at the end may be this much of that after the first fifth."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-schemathesis", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo = write_zoo(Path(folder))
        server = start_server(Path(folder), f"--model_config_file={zoo / 'models.config'}")
        try:
            server.wait_ready("zoo")
            faults = fuzz(server, options.inputs, options.seed)
            if not options.no_schemathesis:
                faults += run_schemathesis(server)
            faults += [] if server.process.poll() is None else [f"the server died: {server.process.returncode}"]
        finally:
            server.stop()
        bugs = server.log.read_text().count("event=bug")
    faults += [f"{bugs} bugs in the server's log"] if bugs else []
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


def fuzz(server: RunningServer, inputs: int, seed: int) -> list[str]:
    """Run both kinds in five parts; the faults found."""
    memory, faults = [], []
    codes: collections.Counter[str] = collections.Counter()
    for part in range(5):
        rest = list(mutations.rest_requests(seed * 10 + part, inputs * 6 // 50))
        asyncio.run(over_rest(server, rest, codes, faults))
        over_grpc(server, mutations.grpc_requests(seed * 10 + part, inputs * 4 // 50), codes, faults)
        memory.append(psutil.Process(server.process.pid).memory_info().rss)
        print(f"part {part + 1} of 5: {memory[-1] >> 20} MiB, {sum(codes.values())} inputs, {len(faults)} faults")
    print(dict(codes.most_common()))
    if memory[-1] > memory[0] * FLAT:
        faults.append(f"memory grew from {memory[0] >> 20} to {memory[-1] >> 20} MiB")
    return faults


async def over_rest(
    server: RunningServer, requests: list[tuple[str, bytes]], codes: collections.Counter[str], faults: list[str]
) -> None:
    """Every request, over a few connections."""
    queue = iter(requests)
    port = int(server.url.rpartition(":")[2])

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path, body in queue:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            status = int(answer.split(b" ", 2)[1])
            fields = answer.lower().split(b"content-length:")[1]
            text = await reader.readexactly(int(fields.split(b"\r\n", 1)[0]))
            codes[f"HTTP {status}"] += 1
            if status >= 500 and status != 501:
                faults.append(f"{path} {body!r}: {status} {text[:200]!r}")
        writer.close()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


def over_grpc(
    server: RunningServer, calls: Iterator[tuple[str, bytes]], codes: collections.Counter[str], faults: list[str]
) -> None:
    """Every call, a window of them in flight."""
    with grpc.insecure_channel(server.target) as channel:
        window: collections.deque[tuple[str, bytes, grpc.Future]] = collections.deque()

        def settle() -> None:
            method, message, future = window.popleft()
            error = future.exception()
            code = "OK" if error is None else error.code().name
            codes[f"gRPC {code}"] += 1
            details = "" if error is None else str(error.details())
            if code in ("UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED") or "Internal error" in details:
                faults.append(f"{method} {message!r}: {code} {details}")

        for method, message in calls:
            window.append((method, message, channel.unary_unary(method).future(message, timeout=60)))
            if len(window) == 4 * CONNECTIONS:
                settle()
        while window:
            settle()


def run_schemathesis(server: RunningServer) -> list[str]:
    """Its own checks on every operation of the OpenAPI page; faults where it saw a 5xx or a server that is gone."""
    program = FUZZ / "bin" / "schemathesis"
    if not program.exists():
        print(f"installing schemathesis into {FUZZ}", file=sys.stderr)
        venv.create(FUZZ, with_pip=True, clear=True)
        install = [FUZZ / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*install, "-r", REQUIREMENTS], check=True)
    command = [program, "run", f"{server.url}/openapi.json", "--checks", "not_a_server_error", "--max-examples", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FUZZ)
    print("\n".join(done.stdout.splitlines()[-25:]))
    return [] if done.returncode == 0 else [f"schemathesis ended with {done.returncode}: {done.stderr[-500:]}"]


if __name__ == "__main__":
    sys.exit(main())
