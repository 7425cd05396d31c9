"""What a part of the campaign found: figures with what they must be, and the processes that a command has left."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SERVESTORM = Path(sys.executable).with_name("servestorm")
"""The program as it is installed: what a person starts."""
OWNER_VARIABLE = "SERVESTORM_OWNER"


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: object
    most: float | None = None
    """What the value may be at most; None where it is only stated."""

    @property
    def missed(self) -> bool:
        return self.most is not None and float(str(self.value)) > self.most


def table(part: str, figures: Iterable[Figure]) -> str:
    """Markdown rows: part, figure, value, target."""
    rows = []
    for figure in figures:
        target = "" if figure.most is None else f"<= {figure.most:g}: {'MISSED' if figure.missed else 'reached'}"
        rows.append(f"| {part} | {figure.name} | {figure.value} | {target} |")
    return "\n".join(rows)


def family(process: psutil.Process) -> list[psutil.Process]:
    """All that a process has started, and that they have started."""
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def tagged(owner: str) -> list[psutil.Process]:
    """Processes that carry the tag of an owner in their environment, whoever is their parent by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(OWNER_VARIABLE) == owner:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def tag_of(process: psutil.Process) -> str:
    """What the command writes into the environment of what it starts: pid and start in ticks since boot."""
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return f"{process.pid}:{stat[19]}"


def living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that run; a zombie is dead."""
    alive = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except psutil.Error:
            continue
    return alive


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:100]
    except psutil.Error:
        return "ended meanwhile"
