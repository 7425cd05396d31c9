"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, TextIO

PLAIN_EVERY_S = 10.0
"""Seconds between plain lines of a step that reports its progress."""
TRUSTED_FRACTION: Final = 0.5
"""Of a step, after which its own speed alone says how long it takes."""
LARGEST_SHARE: Final = 0.99
"""That is shown of a study which is not over."""
LEAST_RISE_S: Final = 2.0
MOST_SILENT_RISE: Final = 0.05
"""Of the time left: a smaller rise is within what a guess can say, and the figure stays as it is."""


@dataclass(frozen=True)
class ProgressStep:
    """A piece of work: `kind` says for a reader what takes about as long as each other."""

    title: str
    kind: str
    guess_s: float
    optional: bool = False
    """Whether it is left out where it would not be over in time."""


class Reading(NamedTuple):
    """What is shown of an Outlook at one moment."""

    done: float
    """Share of the whole that is done, 0..1; it never falls."""
    left_s: float
    reason: str
    """Why more seconds are left than at the reading before; empty where that is not so."""


class Outlook:
    """How much is done and how long the rest takes: first by guesses, then by what each kind really took."""

    def __init__(self, steps: Sequence[ProgressStep]) -> None:
        self.steps = list(steps)
        self._next = 0
        self._started_s: float | None = None
        self._fraction = 0.0
        self._took: dict[str, list[tuple[float, float]]] = {}
        self._ends_by_s = math.inf
        self._done, self._done_at_s = 0.0, math.nan
        self._shown_s, self._shown_lengths_s = math.inf, dict[int, float]()
        self._lock = threading.Lock()

    def ends_by(self, moment_s: float) -> None:
        """No optional step is begun that would not be over by then, on the clock of the others."""
        self._ends_by_s = moment_s

    def skip(self, steps: int) -> None:
        """Leave out the next steps."""
        with self._lock:
            self._next += steps

    def begin(self, now_s: float, step: ProgressStep | None = None) -> ProgressStep:
        """Enter the next step; `step` takes its place where less of it is left than was planned."""
        with self._lock:
            if step:
                self.steps[self._next] = step
            self._started_s, self._fraction = now_s, 0.0
            if math.isnan(self._done_at_s):
                self._done_at_s = now_s
            return self.steps[self._next]

    def report(self, fraction: float) -> None:
        """Note how far the step is, from 0 to 1, where it knows."""
        self._fraction = max(self._fraction, min(1.0, fraction))

    def end(self, now_s: float) -> None:
        """Leave the step, and learn from it."""
        with self._lock:
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

    def _present_length_s(self, now_s: float) -> float:
        """Of the present step: as expected, and the more by its own speed the further it says that it is."""
        expected_s = self._length_s(self.steps[self._next])
        if self._started_s is None or not self._fraction:
            return expected_s
        # what comes first, such as an import, is not of the step's speed
        trust = min(1.0, self._fraction / TRUSTED_FRACTION)
        return trust * (now_s - self._started_s) / self._fraction + (1 - trust) * expected_s

    def _within(self, now_s: float) -> float:
        """Share of the present step that is done: as reported, else estimated from its time, below 1."""
        if self._started_s is None:
            return 0.0
        if self._fraction:
            return self._fraction
        return min(0.97, (now_s - self._started_s) / max(1e-9, self._length_s(self.steps[self._next])))

    def left_s(self, now_s: float) -> float:
        """Seconds until the end. Optional steps take what the others leave until the moment of `ends_by`."""
        if self._next >= len(self.steps):
            return 0.0
        begun = self._started_s is not None
        later = self.steps[self._next + begun :]
        certain_s = self._present_length_s(now_s) * (1 - self._within(now_s)) if begun else 0.0
        certain_s += sum(self._length_s(step) for step in later if not step.optional)
        optional_s = sum(self._length_s(step) for step in later if step.optional)
        return certain_s + min(optional_s, max(0.0, self._ends_by_s - now_s - certain_s))

    def done(self, now_s: float) -> float:
        """Share of the whole that is done, 0..1.

        It never falls: of what is not done yet, the seconds since it was last asked for are done, as a share of
        themselves and those that are left. Where more is left than was expected, it rises more slowly.
        """
        if self._next >= len(self.steps):
            return 1.0
        if not math.isnan(self._done_at_s):
            passed_s = max(0.0, now_s - self._done_at_s)
            share = passed_s / max(1e-9, passed_s + self.left_s(now_s))
            self._done, self._done_at_s = min(LARGEST_SHARE, self._done + (1 - self._done) * share), now_s
        return self._done

    def reading(self, now_s: float) -> Reading:
        """What to show: of a rise of the time left the reason, unless it is so small that it is not shown."""
        with self._lock:
            left_s = self.left_s(now_s)
            rise_s = left_s - self._shown_s
            reason = self._what_grew(now_s) if rise_s > max(LEAST_RISE_S, MOST_SILENT_RISE * self._shown_s) else ""
            if rise_s > 0 and not reason:
                left_s = self._shown_s
            else:
                self._shown_s, self._shown_lengths_s = left_s, self._lengths_s(now_s)
            return Reading(self.done(now_s), left_s, reason)

    def _lengths_s(self, now_s: float) -> dict[int, float]:
        """Seconds that each step takes which is not over, by its place."""
        lengths_s = {place: self._length_s(self.steps[place]) for place in range(self._next, len(self.steps))}
        return lengths_s | ({self._next: self._present_length_s(now_s)} if lengths_s else {})

    def _what_grew(self, now_s: float) -> str:
        """The kind of steps that are now expected to take the most seconds more than when it was last shown."""
        more_s: dict[str, float] = {}
        for place, length_s in self._lengths_s(now_s).items():
            kind = self.steps[place].kind
            more_s[kind] = more_s.get(kind, 0.0) + length_s - self._shown_lengths_s.get(place, 0.0)
        return f"{max(more_s, key=more_s.__getitem__)} takes longer than expected"


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
    def step(self, changed: ProgressStep | None = None) -> Iterator[ProgressStep]:
        """The next piece of work, or what it has become."""
        step = self.outlook.begin(time.monotonic(), changed)
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
        reading = self.outlook.reading(now_s)
        why = f": {reading.reason}" if reading.reason else ""
        self.tell(f"[{reading.done:4.0%}, {clock_text(reading.left_s)} left{why}] {what}")


class _Bar:
    """rich's progress bar, moved twice a second by a thread of ours since steps are mostly waits."""

    def __init__(self, outlook: Outlook, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._outlook = outlook
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %  {task.fields[left]} left{task.fields[why]}"),
            console=Console(file=stream),
            expand=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("starting", total=1.0, left="", why="")
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
        why, why_until_s = "", 0.0
        while not self._ended.wait(0.5):
            now_s = time.monotonic()
            reading = self._outlook.reading(now_s)
            if reading.reason:
                why, why_until_s = f": {reading.reason}", now_s + PLAIN_EVERY_S
            left, shown = clock_text(reading.left_s), why if now_s < why_until_s else ""
            self._progress.update(self._task, completed=reading.done, left=left, why=shown)
