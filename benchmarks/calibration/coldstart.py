"""Are the phases of a cold start what they are said to be? A server with programmed delays knows.

    python benchmarks/calibration/coldstart.py [--starts 20]

tests/stand_ins/delayed_server.py waits a random time before it binds its port, before it is ready and before it
answers rightly, is slow for a random number of requests, and writes down when it did each. The process backend starts
it, and the ledger's phases are compared with what it wrote. Ends with 1 where a phase is off by more than 20 ms in the
median start, or the first steady request by more than 11 requests.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(HERE)]

from models.manifest import ModelDir  # noqa: E402
from servestorm.analysis.scenarios.coldstart import ledger, steady_ns  # noqa: E402
from servestorm.methods.steady_point import steady_from  # noqa: E402
from servestorm.study.scenarios.coldstart import settle  # noqa: E402
from serving.backend import DeploymentOrder  # noqa: E402
from serving.backends import ProcessBackend  # noqa: E402
from serving.deployment import Batching, Budget, Endpoint, EventLog, Launch  # noqa: E402
from serving.ports import HOST, free_ports  # noqa: E402
from serving.probe import first_answer, http_get  # noqa: E402
from serving.wire import WIRES  # noqa: E402
from tests.stand_ins.toy_engine import write_toy_model  # noqa: E402

SERVER = HERE / "tests" / "stand_ins" / "delayed_server.py"
LIMIT_MS = 20.0
PHASES = {"port_bound_s": "bound", "ready_s": "ready", "first_right_answer_s": "right"}
"""Phase of the ledger by what the server wrote down at its end; the first begins when the process was spawned."""


class Delayed:
    """Runs delayed_server.py with these delays."""

    name, artifact = "delayed", "mar"

    def __init__(self, stamps: Path, delays: list[float]) -> None:
        self.arguments = [str(stamps), *map(str, delays)]

    def check(self):
        return "delayed"

    def launch(self, model, replica, budget, batching, workdir, port):
        (port,) = free_ports(1)
        url = f"http://{HOST}:{port}"
        return Launch(
            command=[sys.executable, "-S", str(SERVER), str(port), *self.arguments],
            env={},
            endpoint=Endpoint(replica, url, f"{HOST}:{port}", f"{url}/metrics"),
            workdir=workdir,
            ports=(port,),
        )

    def ready(self, endpoint, model):
        return http_get(f"{endpoint.rest_url}/ready") == (200, b"ready")


def one_start(model: ModelDir, folder: Path, numbers: random.Random) -> tuple[dict[str, float], int | None]:
    """Error of each phase in ms, and of the first steady request in requests (None where none was found)."""
    slow = numbers.randrange(20, 100)
    delays = [numbers.uniform(0.05, 0.6) for _ in range(3)]
    stamps, events = folder / "stamps.json", EventLog()
    with ProcessBackend().start(
        DeploymentOrder(
            Delayed(stamps, [*delays, slow, 15, 5]),
            model,
            replicas=1,
            budget=Budget(cpus=(0,)),
            batching=Batching(),
            workdir=folder / "work",
            events=events,
        )
    ) as deployment:
        deployment.wait_ready(30)
        endpoint, wire = deployment.endpoints[0], WIRES["torchserve"]
        events.add("first_right_answer", 0, t_ns=first_answer(endpoint, wire, model, timeout_s=30))
        answers = settle(endpoint, wire, model)
    if (t_ns := steady_ns(answers)) is not None:
        events.add("steady", 0, t_ns=t_ns)
    found, truth = ledger(events.events, {}), json.loads(stamps.read_text())
    truth["spawned"] = next(event.t_ns for event in events.events if event.name == "spawned")
    begins = ["spawned", *PHASES.values()]
    off = {
        name: 1000 * found[name] - (truth[end] - truth[begin]) / 1e6
        for begin, (name, end) in zip(begins, PHASES.items(), strict=False)
    }
    index = steady_from([latency_ms for _, latency_ms in answers])
    return off, None if index is None else index - slow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20, help="cold starts (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the delays")
    options = parser.parse_args()
    numbers, errors, steady = random.Random(options.seed), [], []
    with tempfile.TemporaryDirectory() as name:
        model = ModelDir(write_toy_model(Path(name) / "toy"))
        for start in range(options.starts):
            folder = Path(name) / str(start)
            folder.mkdir()
            off, requests = one_start(model, folder, numbers)
            errors.append(off)
            steady.append(requests)
    print(f"{options.starts} starts of a server with programmed delays; measured minus programmed\n")
    print("| phase | median | smallest | largest |\n|---|---:|---:|---:|")
    good = True
    for phase in PHASES:
        values = [error[phase] for error in errors]
        good &= abs(statistics.median(values)) <= LIMIT_MS
        print(f"| {phase} | {statistics.median(values):.1f} ms | {min(values):.1f} ms | {max(values):.1f} ms |")
    known = [value for value in steady if value is not None]
    good &= len(known) >= 0.9 * len(steady) and abs(statistics.median(known)) <= 11
    told = f"{statistics.median(known):.0f} | {min(known)} | {max(known)}" if known else "– | – | –"
    print(f"| first steady request (found in {len(known)} of {len(steady)}) | {told} |")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
