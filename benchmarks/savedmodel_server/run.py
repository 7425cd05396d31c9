"""How fast savedmodel-server is, against TensorFlow in process, LitServe and BentoML: one command, one table.

    python benchmarks/savedmodel_server/run.py [--rounds 5] [--seconds 5] [--memory] [--model build/models/cnn]

Server on core 0, client on core 1, all servers up one at a time, rounds interleaved, medians. The peers come from PyPI
into a virtual environment of their own (build/peers), made at the first run; they serve the same SavedModel.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from measures import in_process, json_parse_us, memory_growth, start_up_s
from servers import SERVERS, Contender, make_peers, running

ROOT = Path(__file__).resolve().parents[2]
SERVER_CPU, CLIENT_CPU = 0, 1


def main() -> int:
    options = parsed()
    model = options.model.resolve()
    if not (model / "manifest.json").exists():
        print(f"{model} holds no manifest.json: make the model with `servestorm export`.", file=sys.stderr)
        return 3
    contenders = [c for c in SERVERS if c.name in options.only]
    if any(c.is_peer for c in contenders):
        make_peers()
    figures = measured(options, model, contenders)
    text = table(figures)
    print(text)
    out = ROOT / "build" / "benchmarks"
    out.mkdir(parents=True, exist_ok=True)
    (out / "savedmodel_server.json").write_text(json.dumps(figures, indent=1))
    (out / "savedmodel_server.md").write_text(text + "\n")
    return 0


def parsed() -> argparse.Namespace:
    names = [c.name for c in SERVERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="each load")
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="servers to measure")
    parser.add_argument("--memory", action="store_true", help="also 200,000 requests against 2,000 (minutes)")
    return parser.parse_args()


def measured(options: argparse.Namespace, model: Path, contenders: list[Contender]) -> dict[str, list[float]]:
    """Every figure of every round."""
    figures: dict[str, list[float]] = {}

    def keep(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)
        print(f"  {name}: {value:.3f}", file=sys.stderr)

    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        one_ms, each_ms = in_process(model, SERVER_CPU)
        keep("in process, batch 1, ms", one_ms)
        keep("in process, batch 32, images/s", 1000 / each_ms)
        shift = number % len(contenders) if contenders else 0
        for contender in contenders[shift:] + contenders[:shift]:
            load(contender, model, options.seconds, keep)
        imported_s, available_s = start_up_s(model, SERVER_CPU)
        keep("start to AVAILABLE minus import tensorflow, s", available_s - imported_s)
        keep("JSON tensor 32x32x3 parse, us", json_parse_us(SERVER_CPU))
    if options.memory:
        keep("memory after 200,000 requests against 2,000", memory_growth(model, SERVER_CPU, CLIENT_CPU))
    return figures


def load(contender: Contender, model: Path, seconds: float, keep: Callable[[str, float], None]) -> None:
    """32 in flight and one in flight on one server."""
    for batching, in_flight in ((True, 32), (False, 1)):
        if not batching and contender.is_peer:
            continue
        with running(contender, model, SERVER_CPU, batching=batching) as port:
            result = contender.client(port, model, in_flight, seconds, CLIENT_CPU)
        if result["errors"] or not result["rate"]:
            wrong = f"{result['errors']} wrong answers of {result['count']}"
            raise SystemExit(f"{contender.name}: {wrong}, for instance {result['example']!r}")
        if batching:
            keep(f"{contender.name}, 32 in flight, images/s", result["rate"])
        else:
            keep(f"{contender.name}, one in flight, p50 ms", result["p50_ms"])


def table(figures: dict[str, list[float]]) -> str:
    """Markdown: medians and ranges, then the ratios that are promised."""
    lines = ["| figure | median | least | most |", "| --- | --- | --- | --- |"]
    middle = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        lines.append(f"| {name} | {middle[name]:.4g} | {min(values):.4g} | {max(values):.4g} |")
    lines += ["", "| promised | at least | found |", "| --- | --- | --- |"]
    lines += [f"| {name} | {bound} | {value} |" for name, bound, value in promises(middle)]
    return "\n".join(lines)


def promises(middle: dict[str, float]) -> list[tuple[str, str, str]]:
    """The figures that the server is held to, where everything they need was measured."""
    rate = {c.name: middle.get(f"{c.name}, 32 in flight, images/s") for c in SERVERS}
    peers = [rate[c.name] for c in SERVERS if c.is_peer and rate[c.name]]
    rest, rpc, limit = rate["REST"], rate["gRPC"], middle["in process, batch 32, images/s"]
    found: list[tuple[str, str, str]] = []
    if rest:
        found.append(("REST against the in-process batch-32 limit", "0.5", f"{rest / limit:.2f}"))
        one = middle["REST, one in flight, p50 ms"] - middle["in process, batch 1, ms"]
        found.append(("REST, one in flight, minus the in-process call", "under 0.6 ms", f"{one:.2f} ms"))
    if rest and peers:
        found.append(("REST against the better peer", "2", f"{rest / max(peers):.2f}"))
    if rpc and peers:
        found.append(("gRPC against the better peer", "1.5", f"{rpc / max(peers):.2f}"))
    if rest and rpc:
        found.append(("gRPC against REST", "0.8", f"{rpc / rest:.2f}"))
    start = middle["start to AVAILABLE minus import tensorflow, s"]
    found.append(("start to AVAILABLE minus import tensorflow", "under 0.7 s", f"{start:.2f} s"))
    found.append(("JSON tensor 32x32x3", "under 0.15 ms", f"{middle['JSON tensor 32x32x3 parse, us'] / 1000:.3f} ms"))
    growth = middle.get("memory after 200,000 requests against 2,000")
    if growth is not None:
        found.append(("memory after 200,000 requests against 2,000", "within 3 %", f"{(growth - 1) * 100:+.1f} %"))
    return found


if __name__ == "__main__":
    sys.exit(main())
