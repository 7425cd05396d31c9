"""100,000 inputs against savedmodel-server: 0 crashes, 0 unexpected 5xx, memory flat, nothing forbidden accepted.

    python benchmarks/fuzz/run.py [--inputs 100000] [--first 0] [--seed 0] [--enable-batching]
        [--no-schemathesis]

Three tenths are requests over REST, two tenths calls over gRPC, damaged in their bytes or in their structure, as
tests/serving/savedmodel_server/mutations.py and nearly_valid.py do. One in a hundred is a reload of the models, as
reload_inputs.py makes them: after each, the server must serve what the last one that it accepted asks for. Three
tenths are connections of raw HTTP/1.1 and two tenths sequences of HTTP/2 frames, as
tests/serving/savedmodel_server/wire makes them: each either good, or with something that RFC 9112 or 9113 says must be
refused. Counted are those that were accepted, and requests that were answered with another's bytes. Then schemathesis
(installed into build/fuzz, a virtual environment of its own) works through the server's OpenAPI page.

Inputs are made in blocks of 1,000, each from the seed and its number: `--first 40000 --inputs 20000` is the third fifth
of a whole run, against a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from serving.engines.tensorflow_settings import GRPC_THREADS  # noqa: E402
from tests.serving.savedmodel_server import mutations, reload_inputs  # noqa: E402
from tests.serving.savedmodel_server.savedmodel_zoo import write_zoo  # noqa: E402
from tests.serving.savedmodel_server.server_process import LABELS_AT_START, RunningServer, start_server  # noqa: E402
from tests.serving.savedmodel_server.wire import http1_inputs, http2_inputs, wire_fuzz  # noqa: E402

FUZZ = ROOT / "build" / "fuzz"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
CONNECTIONS = 8
ANSWER_S = 60.0
BLOCK = 1000
"""Inputs that one seed makes."""
FLAT = 1.05
"""Resident memory at the end may be this much of that after the first fifth."""


KINDS = ("REST", "gRPC", "reload", "HTTP/1.1", "HTTP/2")


@dataclass
class Tally:
    """What all blocks came to."""

    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)
    accepted: int = 0
    mixed_up: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(KINDS))

    def add(self, found: wire_fuzz.Found) -> None:
        """What came of framing."""
        self.outcomes += found.outcomes
        self.accepted += len(found.accepted)
        self.mixed_up += len(found.mixed_up)
        self.faults += found.faults()

    def add_seconds(self, kind: int, begin_s: float) -> None:
        """The time that one of KINDS has taken."""
        self.seconds[kind] += time.monotonic() - begin_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help=f"inputs of the seed to pass over; a multiple of {BLOCK}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--enable-batching", action="store_true", help="of the server")
    parser.add_argument("--no-schemathesis", action="store_true")
    options = parser.parse_args()
    if options.first % BLOCK:
        parser.error(f"--first must be a multiple of {BLOCK}.")
    with tempfile.TemporaryDirectory() as folder:
        zoo = write_zoo(Path(folder))
        flags = [f"--model_config_file={zoo / 'models.config'}", LABELS_AT_START, f"--grpc_max_threads={GRPC_THREADS}"]
        flags += ["--enable_batching"] if options.enable_batching else []
        server = start_server(Path(folder), *flags)
        try:
            server.wait_ready("zoo")
            faults = fuzz(server, zoo, blocks(options.inputs, options.first), options.seed)
            if not options.no_schemathesis:
                faults += run_schemathesis(server)
            faults += [] if server.process.poll() is None else [f"the server died: {server.process.returncode}"]
        finally:
            server.stop()
        bugs = server.log.read_text().count("event=bug")
    faults += [f"{bugs} bugs in the server's log"] if bugs else []
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


def blocks(inputs: int, first: int) -> list[tuple[int, int]]:
    """The number and the size of each block; only the last one may be smaller than BLOCK."""
    return [(at // BLOCK, min(BLOCK, first + inputs - at)) for at in range(first, first + inputs, BLOCK)]


def fuzz(server: RunningServer, zoo: Path, numbered: list[tuple[int, int]], seed: int) -> list[str]:
    """Run all kinds of each block; the faults found. Memory is compared with that after a fifth."""
    tally, memory = Tally(), []
    fifth = -(-len(numbered) // 5)
    for done, (number, size) in enumerate(numbered, 1):
        run_block(server, zoo, tally, seed * 1_000_000 + number, size)
        if done % fifth == 0 or done == len(numbered):
            memory.append(psutil.Process(server.process.pid).memory_info().rss)
            print(f"block {done} of {len(numbered)}: {memory[-1] >> 20} MiB, {len(tally.faults)} faults", flush=True)
    print(dict(tally.codes.most_common()))
    print(dict(tally.outcomes.most_common()))
    print(dict(zip(KINDS, (f"{seconds:.1f} s" for seconds in tally.seconds), strict=True)))
    print(f"accepted though the RFCs say refuse: {tally.accepted}; answered with another's bytes: {tally.mixed_up}")
    if memory[-1] > memory[0] * FLAT:
        tally.faults.append(f"memory grew from {memory[0] >> 20} to {memory[-1] >> 20} MiB")
    return tally.faults


def run_block(server: RunningServer, zoo: Path, tally: Tally, seed: int, size: int) -> None:
    """Three tenths REST, two gRPC, some of which reload, three raw HTTP/1.1, two HTTP/2 frames."""
    rest, rpc = ("127.0.0.1", port_of(server.url)), ("127.0.0.1", port_of(server.target))
    reloads = size // 100
    begin = time.monotonic()
    asyncio.run(over_rest(rest, list(mutations.rest_requests(seed, size * 3 // 10)), tally))
    tally.add_seconds(0, begin)
    begin = time.monotonic()
    over_grpc(server.target, mutations.grpc_requests(seed, size * 2 // 10 - reloads), tally)
    tally.add_seconds(1, begin)
    begin = time.monotonic()
    over_reloads(server.target, zoo, reload_inputs.requests(seed, reloads, zoo), tally)
    tally.add_seconds(2, begin)
    begin = time.monotonic()
    tally.add(asyncio.run(wire_fuzz.over_http1(rest, http1_inputs.connections(seed, size * 3 // 10))))
    tally.add_seconds(3, begin)
    begin = time.monotonic()
    tally.add(asyncio.run(wire_fuzz.over_http2(rpc, http2_inputs.sequences(seed, size * 2 // 10))))
    tally.add_seconds(4, begin)


def over_reloads(target: str, zoo: Path, messages: Iterator[bytes], tally: Tally) -> None:
    """One after the other, for each sets what is served; at the end the models of the other kinds are back."""
    with grpc.insecure_channel(target) as channel:
        reloads = reload_inputs.Reloads(channel, zoo)
        for message in messages:
            reloads.send(message)
        reloads.restore()
    tally.codes.update(f"reload {code}" for code in reloads.codes)
    tally.faults += reloads.faults


def port_of(address: str) -> int:
    """The port of a URL or of host:port."""
    return int(address.rpartition(":")[2])


async def over_rest(address: tuple[str, int], requests: list[tuple[str, bytes]], tally: Tally) -> None:
    """Every request, over a few connections; one that ends, or is silent, is a fault."""
    queue = iter(requests)

    async def work() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for path, body in queue:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            try:
                async with asyncio.timeout(ANSWER_S):
                    status, text = await read_answer(reader)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                tally.faults.append(f"{path} {body!r}: {error!r}")
                writer.close()
                reader, writer = await asyncio.open_connection(*address)
                continue
            tally.codes[f"HTTP {status}"] += 1
            if status >= 500 and status != 501:
                tally.faults.append(f"{path} {body!r}: {status} {text[:200]!r}")
        writer.close()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().split(b"content-length:")[1].split(b"\r\n", 1)[0]
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length))


def over_grpc(target: str, calls: Iterator[tuple[str, bytes]], tally: Tally) -> None:
    """Every call, a window of them in flight."""
    with grpc.insecure_channel(target) as channel:
        window: collections.deque[tuple[str, bytes, grpc.Future]] = collections.deque()

        def settle() -> None:
            method, message, future = window.popleft()
            error = future.exception()
            code = "OK" if error is None else error.code().name
            tally.codes[f"gRPC {code}"] += 1
            details = "" if error is None else str(error.details())
            if code in ("UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED") or "Internal error" in details:
                tally.faults.append(f"{method} {message!r}: {code} {details}")

        for method, message in calls:
            window.append((method, message, channel.unary_unary(method).future(message, timeout=ANSWER_S)))
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
    command = [program, "--config-file", CONFIGURATION, "run", f"{server.url}/openapi.json"]
    command += ["--checks", "not_a_server_error", "--max-examples", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FUZZ)
    print("\n".join(done.stdout.splitlines()[-25:]))
    return [] if done.returncode == 0 else [f"schemathesis ended with {done.returncode}: {done.stderr[-500:]}"]


if __name__ == "__main__":
    sys.exit(main())
