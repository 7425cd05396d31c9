"""Which requests do two servers answer differently? Requests come from a seeded grammar, or from a recording.

    python benchmarks/savedmodel_server/differential.py --a URL TARGET --b URL TARGET [--seed 0] [--requests 10000]
    python benchmarks/savedmodel_server/differential.py --a URL TARGET --record FILE --server NAME --version VERSION
    python benchmarks/savedmodel_server/differential.py --a URL TARGET --replay FILE

URL is http://host:port of REST, TARGET host:port of gRPC. Both servers serve the models that
tests/serving/savedmodel_server/savedmodel_zoo.py writes. Compared are status, content type and parsed value; of errors
the texts only with --texts. All differences are printed by kind, with the first of each in full; `--only N` sends
request N alone and prints it and both answers.

Exit code: 0 no difference, or only where savedmodel-server is stricter on purpose (answer_values.STRICTER); 1 others;
2 wrong usage; 3 an address does not answer.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.savedmodel_server import recording  # noqa: E402
from benchmarks.savedmodel_server.answer_values import difference, stricter  # noqa: E402
from benchmarks.savedmodel_server.asking import Address, Answer, NoServer, Request, ask_all  # noqa: E402
from benchmarks.savedmodel_server.grammar.draws import TRANSPORTS, draw  # noqa: E402

MODELS = ("half_plus_two", "zoo")
DESCRIBED = (
    "half_plus_two (versions 1 and 2, labels stable=1, canary=2, policy all), zoo (version 1): savedmodel_zoo.py"
)
SHOWN = 3
FAULTS = re.compile(r"silent|closed without|no HTTP|INTERNAL|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED|\b5(?!01|05)\d\d\b")
"""Statuses that no request should get; 501 and 505 are answers to methods and versions that a server need not know."""
EXCERPT_BYTES = 300
Compared = tuple[Request, Answer, Answer]


@dataclass
class Findings:
    """What a run came to: differences by (kind of request, what differs), those of class S by name, and faults."""

    count: int = 0
    answers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    faults: list[Compared] = field(default_factory=list)
    differing: dict[tuple[str, str], list[Compared]] = field(default_factory=lambda: defaultdict(list))
    on_purpose: dict[str, list[Compared]] = field(default_factory=lambda: defaultdict(list))

    def add(self, request: Request, a: Answer, b: Answer, *, texts: bool) -> None:
        """Compare one request's answers."""
        self.count += 1
        self.answers[f"{request.over} {a.status}"] += 1
        if not request.is_unreadable() and FAULTS.search(f"{a.status}/{b.status}"):
            self.faults.append((request, a, b))
        what = difference(request, a, b, texts=texts)
        if what and (name := stricter(request, a, b)):
            self.on_purpose[name].append((request, a, b))
        elif what:
            self.differing[request.kind, what].append((request, a, b))

    def total(self) -> int:
        """Differences outside class S."""
        return sum(map(len, self.differing.values()))


def compare(answered: Iterable[Compared], *, texts: bool = False) -> Findings:
    """The differences between the two answers to each request."""
    findings = Findings()
    for request, a, b in answered:
        findings.add(request, a, b, texts=texts)
    return findings


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        addresses = [Address(*given) for given in (options.a, options.b) if given]
        for address in addresses:
            address.check(MODELS, "grpc" in options.over)
        return run(options, addresses)
    except (ValueError, recording.BadRecording) as error:
        print(error, file=sys.stderr)
        return 2
    except NoServer as error:
        print(error, file=sys.stderr)
        return 3


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    address = {"nargs": 2, "metavar": ("URL", "TARGET")}
    parser.add_argument("--a", **address, required=True, help="a server")
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--b", **address, help="the server that it is compared with")
    other.add_argument("--record", type=Path, metavar="FILE", help="write the answers of --a")
    other.add_argument("--replay", type=Path, metavar="FILE", help="compare --a with a recording, which is shown first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument(
        "--over", nargs="+", choices=TRANSPORTS, default=list(TRANSPORTS), help="transports to draw from"
    )
    parser.add_argument("--only", type=int, metavar="N", help="send this request alone")
    parser.add_argument(
        "--connections",
        type=int,
        default=4,
        help="requests in flight at each address",
    )
    parser.add_argument("--texts", action="store_true", help="compare the texts of errors too")
    parser.add_argument("--server", help="of a recording: name of the server")
    parser.add_argument("--version", help="of a recording: its version")
    parser.add_argument("--flags", default="", help="of a recording: flags that the server was started with")
    options = parser.parse_args(arguments)
    if options.record and not (options.server and options.version):
        parser.error("--record needs --server and --version: they are what the file is worth.")
    if options.connections < 1 or options.requests < 1:
        parser.error("--connections and --requests must be at least 1.")
    return options


def run(options: argparse.Namespace, addresses: list[Address]) -> int:
    if options.record:
        count = recording.write(
            options.record, header(options), ask_all(addresses, drawn(options), options.connections)
        )
        print(f"{count} answers written to {options.record}")
        return 0
    answered = replayed(options, addresses[0]) if options.replay else ask_all(
        addresses, drawn(options), options.connections
    )  # fmt: skip
    if options.only is not None:
        return show_one(answered, options.texts)
    findings = compare(answered, texts=options.texts)
    report(findings)
    return 1 if findings.total() else 0


def drawn(options: argparse.Namespace) -> Iterator[Request]:
    """The requests of the seed."""
    numbers = range(options.requests) if options.only is None else [options.only]
    return (draw(options.seed, number, tuple(options.over)) for number in numbers)


def replayed(options: argparse.Namespace, address: Address) -> Iterator[Compared]:
    """(request, recorded answer, that of the address)."""
    known, lines = recording.read(options.replay)
    print(f"recorded from {known['server']} on {known.get('recorded', 'an unknown day')}")
    return replay(address, [line for line in lines if options.only in (None, line[0].number)], options.connections)


def replay(address: Address, lines: list[tuple[Request, Answer]], connections: int = 4) -> Iterator[Compared]:
    """(request, recorded answer, that of the address) of each line of a recording."""
    asked = ask_all([address], (request for request, _ in lines), connections)
    for (request, recorded), (_, answer) in zip(lines, asked, strict=True):
        yield request, recorded, answer


def header(options: argparse.Namespace) -> dict[str, object]:
    """The first line of a recording."""
    return {
        "server": options.server,
        "version": options.version,
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "models": DESCRIBED,
        "flags": options.flags,
        "seed": options.seed,
    }


def report(findings: Findings) -> None:
    """Print all differences: the groups from the largest on, the numbers of each, and its first in full."""
    for (kind, what), compared in sorted(findings.differing.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(compared)} of {kind}: {what}")
        show(compared)
    for name, compared in sorted(findings.on_purpose.items()):
        print(f"\n{len(compared)} on purpose: {name}")
        show(compared)
    if findings.faults:
        print(f"\n{len(findings.faults)} with a server error or no answer, whether they differ or not")
        show(findings.faults, len(findings.faults))
    print(f"\nanswers: {dict(sorted(findings.answers.items()))}")
    on_purpose = sum(map(len, findings.on_purpose.values()))
    print(f"{findings.count} requests: {findings.total()} answered differently, and {on_purpose} on purpose")


def show(compared: list[Compared], most: int = SHOWN) -> None:
    """The numbers of requests, and `most` of them in full."""
    print("  numbers " + " ".join(str(request.number) for request, _, _ in compared))
    for request, a, b in compared[:most]:
        print(f"  {request.number}: {request.path} {excerpt(request.body)}")
        for name, answer in (("a", a), ("b", b)):
            print(f"    {name}: {answer.status} {answer.content_type} {excerpt(answer.body)}")


def excerpt(data: bytes) -> str:
    return repr(data[:EXCERPT_BYTES])[1:] + ("..." if len(data) > EXCERPT_BYTES else "")


def show_one(answered: Iterable[Compared], texts: bool) -> int:
    """Print each request and both answers in full; 1 where they differ outside class S."""
    differing = False
    for request, a, b in answered:
        print(f"{request.number}: {request.kind}\n{request.path}\n{request.body!r}")
        for name, answer in (("a", a), ("b", b)):
            print(f"{name}: {answer.status} {answer.content_type}\n{answer.body!r}")
        what = difference(request, a, b, texts=texts)
        print(what or "no difference")
        differing |= bool(what and not stricter(request, a, b))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
