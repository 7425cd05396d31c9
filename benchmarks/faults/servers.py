"""Loads against 28 servers that misbehave: every arrival has an outcome, and no wrong answer counts as right.

    python benchmarks/faults/servers.py [--arrivals 200] [--only NAME ...] [--model build/models/cnn]

Each server gets an even load of 100 requests/s with a time-out of 1 s. The servers know the right answer to each
request and count those that they give: whatever is right in the samples beyond that is wrong and was counted as right.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from answering import Listener, RightAnswers
from behaviours import grpc, rest
from behaviours.table import Behaviour
from figures import ROOT, Figure, table
from loads import EndedLoad, LoadTally, Offer, RunningLoad, target

RATE, TIMEOUT_S = 100, 1.0
SERVERS: dict[str, Behaviour] = {**rest.BEHAVIOURS, **grpc.BEHAVIOURS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrivals", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.arrivals, options.model, options.only)
    print(table("servers", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(arrivals: int, model: Path, names: Sequence[str] = tuple(SERVERS)) -> list[Figure]:
    """A load of so many arrivals against each server; the figures."""
    tally, wrong, missing = LoadTally(), 0, 0
    offer = Offer(RATE, arrivals / RATE, TIMEOUT_S)
    outcomes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="faults-servers-") as folder:
        for name in names:
            answers = RightAnswers(model)
            load = _offer(name, answers, offer, Path(folder), model)
            tally.take(name, load, offer)
            wrong += _wrongly_right(load, answers)
            if SERVERS[name].usable:
                missing += offer.arrivals - _counts(load)["ok"]
            outcomes.append(f"{name}: " + ", ".join(f"{n} {outcome}" for outcome, n in _counts(load).most_common()))
    usable = sum(SERVERS[name].usable for name in names)
    return [
        Figure("servers", len(names)),
        Figure("wrong answers counted as right", wrong, 0),
        Figure(f"arrivals without their right answer, of the {usable} servers that gave it", missing, 0),
        *tally.figures(),
        *(Figure(f"outcomes of {text}", "") for text in outcomes),
    ]


def _offer(name: str, answers: RightAnswers, offer: Offer, folder: Path, model: Path) -> EndedLoad:
    """The load against one server."""
    behaviour, out = SERVERS[name], folder / name.replace("/", " ")
    listener = Listener(behaviour.serve, answers, accept_every_s=behaviour.accept_every_s, backlog=behaviour.backlog)
    with listener as server:
        options = [*target(model, server.port), *offer.options(out)]
        if name in grpc.BEHAVIOURS:
            options += ["--protocol", "grpc", "--grpc-target", f"127.0.0.1:{server.port}"]
        return RunningLoad(options, folder).end(out)


def _wrongly_right(load: EndedLoad, answers: RightAnswers) -> int:
    """Right answers in the samples beyond those that the server gave, summed over the images."""
    if load.samples is None:
        return 0
    counted = Counter(load.samples["image"][load.samples["outcome"] == "ok"].tolist())
    return (counted - answers.given).total()


def _counts(load: EndedLoad) -> Counter[str]:
    return Counter(() if load.samples is None else load.samples["outcome"].tolist())


if __name__ == "__main__":
    sys.exit(main())
