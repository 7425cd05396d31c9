"""Too few file descriptors: a load is refused at its start with `ulimit -n`, or keeps every sample when it runs short.

    python benchmarks/faults/descriptors.py [--loads 10] [--seed 0] [--model build/models/cnn]

Half of the loads start with a hard limit below what their connections need. The others have exactly what the refusal
asks for, and endpoints that need more are listed in their --endpoints-file while they run.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from answering import Listener, RightAnswers, Visit, page
from figures import ROOT, Figure, table
from loads import INVALID, REFUSED, EndedLoad, LoadTally, Offer, RunningLoad, target

from serving.socket_errors import TOO_FEW_DESCRIPTORS

OFFER = Offer(rate=200, duration_s=4.0, timeout_s=3.0)
CONNECTIONS = 40
"""An endpoint's."""
ENDPOINTS = 4
ANSWER_S = 0.5
"""So that 100 requests are in flight, and as many connections are wanted."""
LEAST = 60
"""With a lower limit Python itself does not come to the load."""
NEEDED = re.compile(r"ulimit -n (\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.loads, options.seed, options.model)
    print(table("descriptors", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(loads: int, seed: int, model: Path) -> list[Figure]:
    """So many loads, of which half are refused; the figures."""
    moments, tally, answers = random.Random(seed), LoadTally(), RightAnswers(model)
    bad_refusals: list[str] = []
    unnamed: list[str] = []
    short, needed = 0, LEAST + 1
    with ExitStack() as stack:
        ports = [stack.enter_context(Listener(_answers_late, answers)).port for _ in range(ENDPOINTS)]
        for place in range(-(-loads // 2)):
            limit = moments.randrange(LEAST, needed)
            refusal = _offer(ports, model, limit, more_after_s=None)
            asked = NEEDED.search(refusal.text)
            if refusal.code != REFUSED or asked is None or "Traceback" in refusal.text:
                bad_refusals.append(f"limit {limit}: code {refusal.code}: {refusal.text.strip()[-300:]}")
                continue
            needed = int(asked[1])
            name = f"load {place + 1} with {needed} descriptors"
            load = _offer(ports, model, needed, more_after_s=moments.uniform(0, OFFER.duration_s / 2))
            tally.take(name, load, OFFER, codes=(INVALID,))
            few = (load.summary or {}).get("error_details", {}).get(TOO_FEW_DESCRIPTORS, 0)
            short += few
            if not few or "ulimit -n" not in str((load.summary or {}).get("reasons")):
                unnamed.append(f"{name}: {few} failures, {(load.summary or {}).get('reasons')}")
    return [
        Figure("loads with a hard limit that is too low", -(-loads // 2)),
        Figure("of these not refused with code 3 and `ulimit -n`", len(bad_refusals), 0),
        Figure("requests without a descriptor, in loads that ran short", short),
        Figure("loads that ran short and do not say so", len(unnamed), 0),
        *tally.figures(),
        *(Figure(f"detail: {text}", "") for text in (*bad_refusals, *unnamed)),
    ]


def _answers_late(visit: Visit) -> None:
    for image in visit.requests():
        time.sleep(ANSWER_S)
        visit.send(page(visit.body(image)))


def _limited(limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _offer(ports: list[int], model: Path, limit: int, more_after_s: float | None) -> EndedLoad:
    """A load on the first endpoint; on all of them from that moment on."""
    with tempfile.TemporaryDirectory(prefix="faults-descriptors-") as name:
        folder = Path(name)
        out, file = folder / "out", folder / "endpoints.json"
        _list(file, ports[:1])
        options = [*target(model), *OFFER.options(out)]
        options += ["--endpoints-file", str(file), "--connections", str(CONNECTIONS)]
        load = RunningLoad(options, folder, preexec_fn=_limited(limit))
        if more_after_s is not None:
            while load.process.poll() is None and not list(out.glob("samples.parts/*.parquet")):
                time.sleep(0.01)
            time.sleep(more_after_s)
            _list(file, ports)
        return load.end(out)


def _list(file: Path, ports: list[int]) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps([{"rest": f"http://127.0.0.1:{port}"} for port in ports]))
    temporary.replace(file)


if __name__ == "__main__":
    sys.exit(main())
