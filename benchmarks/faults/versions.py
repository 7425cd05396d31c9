"""Versions of a served model come and go under predictions: each answer must be right, and of a version that is there.

    python benchmarks/faults/versions.py [--predictions 30000] [--seed 0]

A version answers a row x with x + its number. Each prediction has rows of its own, which are multiples of 16: an answer
shows whose it is and which version gave it. Meanwhile version folders are added, removed and brought back, and the
served versions and a label are changed through HandleReloadConfigRequest. Batching is on; half of the connections are
REST, half gRPC. Predictions name no version, one that may or may not be there, or the label.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from asked_rows import Asked, judge, rest_answer, rest_prediction, rpc_answer, rpc_prediction
from churn import VERSIONS, Churn, first_config
from clients import GrpcCalls, Reply, RestConnection
from figures import ROOT, Figure, table
from watched import Watched

sys.path.insert(0, str(ROOT))
from serving.engines.tensorflow_settings import GRPC_THREADS
from tests.serving.savedmodel_server.savedmodel_zoo import save_half_plus
from tests.serving.savedmodel_server.server_process import LABELS_AT_START, RunningServer, start_server

REST_CONNECTIONS = 6
GRPC_CONNECTIONS = 2
CALLS_A_CONNECTION = 3
MEAN_BURST = 10
"""Predictions that a client makes one after the other before it rests, so that a run sees many changes."""
LONGEST_REST_S = 0.8
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass
class Found:
    """What all predictions came to."""

    verdicts: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = run(options.predictions, options.seed)
    print(table("versions", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(predictions: int, seed: int) -> list[Figure]:
    """Serve, change and predict so often; the figures."""
    with tempfile.TemporaryDirectory(prefix="faults-versions-") as folder:
        work = Path(folder)
        for version in VERSIONS:
            save_half_plus(work / "all" / str(version), float(version), factor=1.0)
        (work / "m").mkdir()
        shutil.copytree(work / "all" / str(VERSIONS[0]), work / "m" / str(VERSIONS[0]))
        config = work / "models.config"
        config.write_text(first_config(work / "m"))
        flags = f"--model_config_file={config}", LABELS_AT_START, f"--grpc_max_threads={GRPC_THREADS}"
        server = start_server(work, *flags, "--enable_batching")
        try:
            server.wait_ready("m")
            churn = Churn(work, server.url, server.target, random.Random(seed))
            watched = Watched(server.process.pid)
            found = asyncio.run(_predict_all(churn, server, watched.numbers(predictions), seed))
            watched.read()
            alive = server.process.poll() is None
        finally:
            server.stop()
        bugs = server.log.read_text().count("event=bug")
    verdicts = found.verdicts
    return [
        Figure("predictions", predictions),
        Figure("answered with rows of their own", verdicts["right"]),
        Figure("named a version or a label that was not served, and got 404 or NOT_FOUND", verdicts["not served"]),
        Figure("changes of the served versions, by folder", churn.changes["folder"]),
        Figure("changes of the served versions, by reload", churn.changes["reload"]),
        Figure("folders that went and came back", churn.changes["flap"]),
        Figure("requests without an answer", verdicts["unanswered"], 0),
        Figure("answers with another request's bytes", verdicts["another's"], 0),
        Figure("answers of a version that was not there", verdicts["absent version"], 0),
        Figure("statuses other than documented", verdicts["status"], 0),
        Figure("reloads refused", len(churn.refused), 0),
        Figure("server gone at the end", int(not alive), 0),
        Figure("bugs in the server's log", bugs, 0),
        *watched.figures(),
        *(Figure(f"detail: {text}", "") for text in [*found.details, *churn.refused][:20]),
    ]


async def _predict_all(churn: Churn, server: RunningServer, numbers: Iterator[int], seed: int) -> Found:
    found, over = Found(), asyncio.Event()
    changing = asyncio.create_task(churn.run(over))
    channels = [GrpcCalls(server.target) for _ in range(GRPC_CONNECTIONS)]
    port = int(server.url.rpartition(":")[2])
    choices = (random.Random(seed * 1000 + place) for place in itertools.count())
    try:
        await asyncio.gather(
            *(_over_rest(RestConnection(port), numbers, next(choices), churn, found) for _ in range(REST_CONNECTIONS)),
            *(
                _over_grpc(channel, numbers, next(choices), churn, found)
                for channel in channels
                for _ in range(CALLS_A_CONNECTION)
            ),
        )
    finally:
        over.set()
        await changing
        for channel in channels:
            await channel.close()
    return found


async def _over_rest(
    connection: RestConnection, numbers: Iterator[int], rng: random.Random, churn: Churn, found: Found
) -> None:
    for number in numbers:
        asked = Asked.choose(number, rng)
        sent_s = churn.now_s()
        (reply,) = await connection.ask([rest_prediction(asked)])
        _note(asked, reply, rest_answer(reply), sent_s, churn, found)
        await _rest(rng)
    connection.close()


async def _over_grpc(calls: GrpcCalls, numbers: Iterator[int], rng: random.Random, churn: Churn, found: Found) -> None:
    for number in numbers:
        asked = Asked.choose(number, rng)
        sent_s = churn.now_s()
        reply = await calls.ask(PREDICT, rpc_prediction(asked))
        _note(asked, reply, rpc_answer(reply), sent_s, churn, found)
        await _rest(rng)


async def _rest(rng: random.Random) -> None:
    if rng.random() < 1 / MEAN_BURST:
        await asyncio.sleep(rng.uniform(0, LONGEST_REST_S))


def _note(asked: Asked, reply: Reply, values: list[float], sent_s: float, churn: Churn, found: Found) -> None:
    verdict = judge(asked, reply.status, values, churn.presence, (sent_s, churn.now_s()))
    found.verdicts[verdict] += 1
    if verdict not in ("right", "not served"):
        found.details.append(f"{verdict}: {asked}: {reply.status} {reply.body[:200]!r}")


if __name__ == "__main__":
    sys.exit(main())
