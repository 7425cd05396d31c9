"""Interrupts at random moments: exit code 130, no traceback, no process left.

    python benchmarks/faults/interrupts.py [--interrupts 40] [--seed 0] [--model build/models/cnn]

Ctrl-C (SIGINT) and SIGTERM in turn, three in four of them in the first second of a command, the others in its first
20 s. The commands are a study and a server with both real engines, a report, a comparison, and a load. A signal that
comes before Python has read the first line of ours is Python's own: it ends by the signal, or with a traceback of its
`site` module, and is counted apart.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from figures import ROOT, SERVESTORM, Figure, command_of, family, living, table, tag_of, tagged
from kills import PLAN

END_S = 60.0
LEFT_S = 2.0
"""The process that ends what a killed command left looks for half a second whether there is more."""
EXAMPLE = ROOT / "docs" / "examples" / "process"
LISTEN = (
    "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Starts a program as a shell at a terminal does: what runs in the background has Ctrl-C switched off."""


@dataclass
class Found:
    """What all interrupts did."""

    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    pythons_own: int = 0
    ended_before: int = 0
    left: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interrupts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.interrupts, options.seed, options.model)
    print(table("interrupts", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(interrupts: int, seed: int, model: Path) -> list[Figure]:
    """Interrupt so often; the figures."""
    moments, found = random.Random(seed), Found()
    with tempfile.TemporaryDirectory(prefix="faults-interrupts-") as folder:
        work = Path(folder)
        commands = itertools.cycle(_commands(work, model.resolve()))
        numbers = itertools.cycle([signal.SIGINT, signal.SIGTERM])
        for place in range(interrupts):
            if place % 4 == 3:  # what runs for longer, in the same order
                command, after_s = _commands(work, model.resolve())[place // 4 % 3], moments.uniform(1, 20)
            else:
                command, after_s = next(commands), moments.uniform(0, 1)
            # two of each signal in turn, so that every command gets both
            number = next(numbers) if place % 2 else [signal.SIGINT, signal.SIGTERM][place // 2 % 2]
            _interrupt(command, work, number, after_s, found)
    return [
        Figure("interrupts", interrupts),
        Figure("ended with 130", found.codes["130"]),
        Figure("had ended by themselves before", found.ended_before),
        Figure("came before Python had read our first line", found.pythons_own),
        Figure("exit codes other than 130", len(found.wrong), 0),
        Figure("tracebacks", len(found.tracebacks), 0),
        Figure(f"processes left {LEFT_S:g} s after the end", len(found.left), 0),
        Figure("longest time from the signal to the end, s", f"{found.slowest_s:.2f}"),
        *(Figure(f"detail: {text}", "") for text in (*found.wrong, *found.tracebacks, *found.left)),
    ]


def _commands(work: Path, model: Path) -> list[list[str]]:
    """What is interrupted; the first three run until they are."""
    (work / "plan.yaml").write_text(PLAN.format(model=model))
    for name in ("old", "new"):
        if not (work / name).exists():
            (work / name).mkdir()
            shutil.copy(EXAMPLE / "results.json", work / name / "results.json")
    host = ["--engine", "http", "--host", "http://127.0.0.1:9"]  # the discard port: nothing answers
    return [
        [str(SERVESTORM), "run", "plan.yaml"],
        [str(SERVESTORM), "serve", "--engine", "torchserve", "--model", str(model)],
        [str(SERVESTORM), "serve", "--engine", "savedmodel", "--model", str(model)],
        [str(SERVESTORM), "report", "old/results.json"],
        [str(SERVESTORM), "compare", "old/results.json", "new/results.json"],
        [str(SERVESTORM), "load", "steady", "--headless", *host, "--duration", "60"],
        [str(SERVESTORM), "doctor"],
    ]


def _interrupt(command: list[str], work: Path, number: int, after_s: float, found: Found) -> None:
    log = work / "log"
    with log.open("wb") as output:
        process = psutil.Popen(
            [sys.executable, "-I", "-S", "-c", LISTEN, *command],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        while process.is_running() and "-S" in process.cmdline()[:3]:  # until it is the command
            time.sleep(0.001)
        tag = tag_of(process)
        end_s = time.monotonic() + after_s
        while time.monotonic() < end_s and process.poll() is None:
            time.sleep(0.001)
        ended, started = process.poll(), family(process)
        signalled_s = time.monotonic()
        if ended is None:
            process.send_signal(number)
        try:
            code = process.wait(END_S)
        except psutil.TimeoutExpired:
            process.kill()
            code = process.wait()
            found.wrong.append(f"{command[1]} after {after_s:.2f} s: did not end within {END_S:g} s of {number}")
    found.slowest_s = max(found.slowest_s, time.monotonic() - signalled_s)
    text = log.read_text(errors="replace")
    what = f"{command[1]} {signal.Signals(number).name} after {after_s:.2f} s"
    gone_s = time.monotonic() + LEFT_S
    while (left := living([*started, *tagged(tag)])) and time.monotonic() < gone_s:
        time.sleep(0.05)
    found.left += [f"{what}: {command_of(one)}" for one in left]
    for one in left:
        one.kill()
    if ended is not None:
        found.ended_before += 1
    elif _is_pythons_own(code, text, number):
        found.pythons_own += 1
    else:
        found.codes[str(code)] += 1
        if code != 130:
            found.wrong.append(f"{what}: code {code}: {' / '.join(text.strip().splitlines()[-2:])[:200]}")
        if "Traceback" in text or "Exception ignored" in text:
            found.tracebacks.append(f"{what}: {' / '.join(text.strip().splitlines()[-3:])[:300]}")


def _is_pythons_own(code: int, text: str, number: int) -> bool:
    """Whether the signal came before a line of ours was read."""
    ours = "servestorm: " in text or f"{ROOT.name}/serve" in text
    return not ours and ((code == -number and not text) or "init_import_site" in text or "<frozen site>" in text)


if __name__ == "__main__":
    sys.exit(main())
