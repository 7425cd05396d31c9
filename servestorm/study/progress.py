"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

PLAIN_EVERY_S = 10.0
"""Seconds between plain lines of a step that reports its progress."""


@dataclass(frozen=True)
class ProgressStep:
    """A piece of work: `kind` groups those that take about as long as each other."""

    title: str
    kind: str
    guess_s: float


class Outlook:
    """How much is done and how long the rest takes: first by guesses, then by what each kind really took."""

    def __init__(self, steps: Sequence[ProgressStep]) -> None:
        self.steps = list(steps)
        self._next = 0
        self._started_s: float | None = None
        self._fraction = 0.0
        self._took: dict[str, list[tuple[float, float]]] = {}
        self._ends_by_s = math.inf

    def ends_by(self, moment_s: float) -> None:
        """No step is begun that would not be over by then, on the clock of the others."""
        self._ends_by_s = moment_s

    def skip(self, steps: int) -> None:
        """Leave out the next steps."""
        self._next += steps

    def begin(self, now_s: float) -> ProgressStep:
        """Enter the next step."""
        self._started_s, self._fraction = now_s, 0.0
        return self.steps[self._next]

    def report(self, fraction: float) -> None:
        """Note how far the step is, from 0 to 1, where it knows."""
        self._fraction = max(self._fraction, min(1.0, fraction))

    def end(self, now_s: float) -> None:
        """Leave the step, and learn from it."""
        step = self.steps[self._next]
        if self._started_s is not None:
            self._took.setdefault(step.kind, []).append((step.guess_s, now_s - self._started_s))
        self._next, self._started_s = self._next + 1, None

    def _length_s(self, step: ProgressStep) -> float:
        seen = self._took.get(step.kind)
        if not seen:
            return step.guess_s
        # guesses of one kind may differ (more replicas), so learn the ratio and not the length
        return step.guess_s * sum(took for _, took in seen) / max(1e-9, sum(guess for guess, _ in seen))

    def _within(self, now_s: float) -> float:
        """Share of the present step that is done: as reported, else estimated from its time, below 1."""
        if self._started_s is None:
            return 0.0
        if self._fraction:
            return self._fraction
        return min(0.97, (now_s - self._started_s) / max(1e-9, self._length_s(self.steps[self._next])))

    def left_s(self, now_s: float) -> float:
        """Seconds until the end."""
        if self._next >= len(self.steps):
            return 0.0
        rest = sum(self._length_s(step) for step in self.steps[self._next + 1 :])
        here = self._length_s(self.steps[self._next])
        if self._started_s is not None and self._fraction > 0.05:
            here = (now_s - self._started_s) / self._fraction
        return min(rest + here * (1 - self._within(now_s)), max(0.0, self._ends_by_s - now_s))

    def done(self, now_s: float) -> float:
        """Share of the whole that is done, 0..1."""
        if self._next >= len(self.steps):
            return 1.0
        before = sum(self._length_s(step) for step in self.steps[: self._next])
        here = self._length_s(self.steps[self._next])
        rest = sum(self._length_s(step) for step in self.steps[self._next + 1 :])
        return (before + here * self._within(now_s)) / max(1e-9, before + here + rest)


def clock_text(seconds: float) -> str:
    """'4 min 05 s'."""
    whole = max(0, round(seconds))
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class Display:
    """Shows an Outlook. `step` is a context manager around each piece of work; `tell` writes a line between."""

    def __init__(self, steps: Sequence[ProgressStep], stream: TextIO | None = None) -> None:
        self.outlook = Outlook(steps)
        self.stream = stream or sys.stderr
        self._last_line_s = 0.0
        self._bar = _Bar(self.outlook, self.stream) if self.stream.isatty() else None

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._bar:
            self._bar.stop()

    def tell(self, line: str) -> None:
        """A line of its own on stderr."""
        if self._bar:
            self._bar.print(line)
        else:
            self.stream.write(line + "\n")
            self.stream.flush()

    @contextmanager
    def step(self) -> Iterator[ProgressStep]:
        """The next piece of work."""
        step = self.outlook.begin(time.monotonic())
        if self._bar:
            self._bar.title(step.title)
        else:
            self._line(step.title)
        try:
            yield step
        finally:
            self.outlook.end(time.monotonic())

    def fraction(self, what: str, fraction: float) -> None:
        """Show how far a step is that reports its own progress."""
        self.outlook.report(fraction)
        if self._bar and what:
            self._bar.title(what)
        elif not self._bar and time.monotonic() - self._last_line_s >= PLAIN_EVERY_S:
            self._line(what)

    def _line(self, what: str) -> None:
        now_s = self._last_line_s = time.monotonic()
        left = clock_text(self.outlook.left_s(now_s))
        self.tell(f"[{self.outlook.done(now_s):4.0%}, {left} left] {what}")


class _Bar:
    """rich's progress bar, moved twice a second by a thread of ours since steps are mostly waits."""

    def __init__(self, outlook: Outlook, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._outlook = outlook
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %  {task.fields[left]} left"),
            console=Console(file=stream),
            expand=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("starting", total=1.0, left="")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._move, name="progress", daemon=True)

    def start(self) -> None:
        self._progress.start()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(timeout=2)
        self._progress.stop()

    def title(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def print(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def _move(self) -> None:
        while not self._ended.wait(0.5):
            now_s = time.monotonic()
            left = clock_text(self._outlook.left_s(now_s))
            self._progress.update(self._task, completed=self._outlook.done(now_s), left=left)
