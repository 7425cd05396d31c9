"""A worker of a distributed load killed with SIGKILL at random moments: its arrivals are named as lost.

    python benchmarks/faults/workers.py [--kills 20] [--seed 0] [--model build/models/cnn]

A master and two workers share an even load; one worker is killed between the moment at which the shares are dealt and
the end of the load. Every arrival must be a sample, and a load that lost some must be INVALID with the worker named. In
every fifth load both are killed at once: it ends early, and must say so.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from answering import Listener, RightAnswers, answers_rightly
from figures import ROOT, Figure, table
from loads import INVALID, START_S, EndedLoad, LoadTally, Offer, RunningLoad, last_words, target

from serving.ports import free_ports

OFFER = Offer(rate=100, duration_s=4.0, timeout_s=2.0)
WORKERS = 2
LEAD_S = 2.0
"""From the moment at which the shares are dealt to the first arrival."""
DEALT_S = 60.0
LEFT_S = 10.0
MISSED_S = 10.0
"""So long a master waits for a worker that is silent."""


@dataclass
class Losses:
    """What the kills did to the loads."""

    lost: int = 0
    silent: list[str] = field(default_factory=list)
    """Loads whose summary does not name a worker that was killed before its last arrival."""
    valid: list[str] = field(default_factory=list)
    """Loads that lost arrivals and are VALID all the same."""
    left: int = 0
    before_end: int = 0
    all_killed: int = 0
    untold: list[str] = field(default_factory=list)
    """Loads without a worker that do not say that they were stopped."""


class Cluster:
    """A master and its workers, on loopback."""

    def __init__(self, options: list[str], out: Path, folder: Path, env: list[dict[str, str]] | None = None) -> None:
        """`env`: what the master has in its environment, then each worker."""
        (port,) = free_ports(1)
        self.out, envs = out, env or [{}] * (WORKERS + 1)
        master = ["--master", "--expect-workers", str(WORKERS), "--master-bind-port", str(port), *options]
        worker = ["--headless", "--only-summary", "--worker", "--master-port", str(port)]
        self.master = RunningLoad(master, folder, "master", envs[0])
        self.workers = [RunningLoad(worker, folder, f"worker-{n}", envs[n + 1]) for n in range(WORKERS)]

    def is_dealt(self) -> bool:
        """Wait until the shares are dealt. False where the master ends before."""
        until_s = time.monotonic() + DEALT_S
        while not (self.out / "samples.parts").is_dir():
            if self.master.process.poll() is not None or time.monotonic() > until_s:
                return False
            time.sleep(0.02)
        return True

    def end(self) -> tuple[EndedLoad, int]:
        """What the load left, and how many workers did not end with their master."""
        load = self.master.end(self.out)
        left = 0
        for worker in self.workers:
            try:
                worker.process.wait(LEFT_S)
            except subprocess.TimeoutExpired:
                left += 1
                worker.process.kill()
                worker.process.wait()
        return load, left

    def output(self) -> str:
        """What all of them wrote."""
        return "\n".join(each.output() for each in (self.master, *self.workers))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.kills, options.seed, options.model)
    print(table("workers", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(kills: int, seed: int, model: Path) -> list[Figure]:
    """Kill a worker so often; the figures."""
    moments, tally, losses = random.Random(seed), LoadTally(START_S + MISSED_S), Losses()
    with Listener(answers_rightly, RightAnswers(model)) as server:
        options = target(model, server.port)
        for place in range(kills):
            _kill_one(place, moments, options, tally, losses)
    return [
        Figure("workers killed", kills),
        Figure("of these before their last arrival", losses.before_end),
        Figure("arrivals named as lost with their worker", losses.lost),
        Figure("loads that do not name the lost worker", len(losses.silent), 0),
        Figure("loads that lost arrivals and are VALID", len(losses.valid), 0),
        Figure("loads that lost both workers", losses.all_killed),
        Figure("of these not INVALID with what happened", len(losses.untold), 0),
        Figure(f"workers left {LEFT_S:g} s after their master's end", losses.left, 0),
        *tally.figures(),
        *(Figure(f"detail: {text}", "") for text in (*losses.silent, *losses.valid, *losses.untold)),
    ]


def _kill_one(place: int, moments: random.Random, options: list[str], tally: LoadTally, losses: Losses) -> None:
    both, victim = place % 5 == 4, place % WORKERS
    # before the last second: a load that has ended without a loss says nothing of one
    after_s = moments.uniform(0, LEAD_S + OFFER.duration_s + (-1.0 if both else 0.5))
    with tempfile.TemporaryDirectory(prefix="faults-workers-") as name:
        folder = Path(name)
        out = folder / "out"
        cluster = Cluster([*OFFER.options(out), *options], out, folder)
        if cluster.is_dealt():
            time.sleep(after_s)
        for worker in cluster.workers if both else [cluster.workers[victim]]:
            worker.process.kill()
        killed_ns = time.monotonic_ns()
        load, left = cluster.end()
        text = cluster.output()
    what = f"kill {place + 1} after {after_s:.2f} s"
    losses.left += left
    if both:
        _take_end(what, load, losses)
        return
    tally.take(what, EndedLoad(load.code, text, load.wall_s, load.summary, load.samples), OFFER)
    if load.summary is not None and load.samples is not None:
        before_end = killed_ns < load.samples["scheduled_ns"].max()
        _take_losses(what, load.summary, before_end, losses)


def _take_end(what: str, load: EndedLoad, losses: Losses) -> None:
    """Of a load without a worker: arrivals that are not due yet at its end are none of it."""
    losses.all_killed += 1
    summary = load.summary
    reasons = "" if summary is None else str(summary["reasons"])
    told = "stopped before its end" in reasons and reasons.count("was lost") == WORKERS
    if load.code != INVALID or summary is None or load.samples is None or not told:
        losses.untold.append(f"{what}, both: code {load.code}, reasons {reasons}: {last_words(load.text)}")
    elif len(load.samples["outcome"]) != summary["scheduled"]:
        losses.untold.append(f"{what}, both: {len(load.samples['outcome'])} samples of {summary['scheduled']}")


def _take_losses(what: str, summary: dict[str, object], before_end: bool, losses: Losses) -> None:
    errors, reasons = summary["errors"], str(summary["reasons"])
    lost = errors.get("lost_worker", 0) if isinstance(errors, dict) else 0
    losses.lost += lost
    losses.before_end += before_end
    if (lost or before_end) and "was lost" not in reasons:
        losses.silent.append(f"{what}: {lost} lost, reasons {reasons}")
    if lost and summary["valid"]:
        losses.valid.append(f"{what}: {lost} lost")


if __name__ == "__main__":
    sys.exit(main())
