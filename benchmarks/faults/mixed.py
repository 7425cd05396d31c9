"""All kinds of requests at once against the embedded server: each is answered, with its own answer and its own status.

    python benchmarks/faults/mixed.py [--requests 50000] [--seed 0]

Predict, classify, regress, status, metadata, metrics, health, and broken ones of each kind, over REST on kept
connections, REST pipelined, and gRPC. Every request that computes has a number of its own, which its answer shows, and
every broken one has a documented status. Now and then a client goes away in the middle of a request. Batching is on.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import rest_cases
import rpc_cases
from clients import GrpcCalls, Reply, RestConnection
from figures import ROOT, Figure, table
from watched import Watched

sys.path.insert(0, str(ROOT))
from serving.engines.tensorflow_settings import GRPC_THREADS
from tests.serving.savedmodel_server.savedmodel_zoo import save_half_plus
from tests.serving.savedmodel_server.server_process import RunningServer, start_server

KEPT_CONNECTIONS = 4
PIPELINED_CONNECTIONS = 4
MOST_PIPELINED = 8
GRPC_CONNECTIONS = 2
CALLS_A_CONNECTION = 4
ABANDONED = 0.01
"""Of the turns of a kept connection: it is left in the middle of a request."""


@dataclass
class Found:
    """What all requests came to."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Requests by kind, those that were abandoned apart."""
    verdicts: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    abandoned: int = 0

    def note(self, case: rest_cases.Case | rpc_cases.Call, reply: Reply) -> None:
        """Judge one answer."""
        if not reply.status:
            verdict = "unanswered"
        elif reply.status != case.status:
            verdict = "status"
        else:
            verdict = "right" if case.is_own(reply.body) else "another's"
        self.kinds[case.kind] += 1
        self.verdicts[verdict] += 1
        if verdict != "right":
            self.details.append(f"{verdict}: {case.kind} {reply.status} {reply.body[:200]!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = run(options.requests, options.seed)
    print(table("mixed", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(requests: int, seed: int) -> list[Figure]:
    """Send so many; the figures."""
    with tempfile.TemporaryDirectory(prefix="faults-mixed-") as folder:
        base = Path(folder) / "half_plus_two"
        save_half_plus(base / "2", 2.0)
        flags = "--model_name=half_plus_two", f"--model_base_path={base}", f"--grpc_max_threads={GRPC_THREADS}"
        server = start_server(Path(folder), *flags, "--enable_batching")
        try:
            server.wait_ready("half_plus_two")
            watched = Watched(server.process.pid)
            found = asyncio.run(_send_all(server, watched, requests, seed))
            alive = server.process.poll() is None
        finally:
            server.stop()
        bugs = server.log.read_text().count("event=bug")
    return [
        Figure("requests", sum(found.kinds.values())),
        *(Figure(f"of these {kind}", count) for kind, count in sorted(found.kinds.items())),
        Figure("requests that their clients abandoned, besides", found.abandoned),
        Figure("requests without an answer", found.verdicts["unanswered"], 0),
        Figure("answers with another request's bytes", found.verdicts["another's"], 0),
        Figure("statuses other than expected", found.verdicts["status"], 0),
        Figure("server gone at the end", int(not alive), 0),
        Figure("bugs in the server's log", bugs, 0),
        *watched.figures(),
        *(Figure(f"detail: {text}", "") for text in found.details[:20]),
    ]


async def _send_all(server: RunningServer, watched: Watched, requests: int, seed: int) -> Found:
    found, numbers = Found(), watched.numbers(requests)
    rngs = iter([random.Random(seed * 1000 + place) for place in range(100)])
    channels = [GrpcCalls(server.target) for _ in range(GRPC_CONNECTIONS)]
    port = int(server.url.rpartition(":")[2])
    await asyncio.gather(
        *(_kept(RestConnection(port), numbers, next(rngs), found) for _ in range(KEPT_CONNECTIONS)),
        *(_pipelined(RestConnection(port), numbers, next(rngs), found) for _ in range(PIPELINED_CONNECTIONS)),
        *(_called(channel, numbers, next(rngs), found) for channel in channels for _ in range(CALLS_A_CONNECTION)),
    )
    for channel in channels:
        await channel.close()
    watched.read()
    return found


async def _kept(connection: RestConnection, numbers: Iterator[int], rng: random.Random, found: Found) -> None:
    for number in numbers:
        case = rest_cases.choose(number, rng)
        if rng.random() < ABANDONED:
            await connection.abandon(case.wire[: rng.randrange(1, len(case.wire))])
            found.abandoned += 1
        (reply,) = await connection.ask([case.wire])
        found.note(case, reply)
    connection.close()


async def _pipelined(connection: RestConnection, numbers: Iterator[int], rng: random.Random, found: Found) -> None:
    while True:
        cases = [rest_cases.choose(number, rng) for number in islice(numbers, rng.randint(2, MOST_PIPELINED))]
        if not cases:
            break
        # after one that ends its connection nothing is answered: what would follow it goes first
        cases.sort(key=lambda case: case.ends_connection)
        while cases:
            end = next((place for place, case in enumerate(cases, 1) if case.ends_connection), len(cases))
            for case, reply in zip(cases[:end], await connection.ask([case.wire for case in cases[:end]]), strict=True):
                found.note(case, reply)
            cases = cases[end:]
    connection.close()


async def _called(calls: GrpcCalls, numbers: Iterator[int], rng: random.Random, found: Found) -> None:
    for number in numbers:
        call = rpc_cases.choose(number, rng)
        found.note(call, await calls.ask(call.method, call.message))


if __name__ == "__main__":
    sys.exit(main())
