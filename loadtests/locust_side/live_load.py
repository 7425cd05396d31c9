"""What the web page and the HTML report show of a load: its phase, its seconds, whether it is VALID."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from typing import Any, Final

from loadtests.samples.seconds import COUNTS, Seconds
from loadtests.samples.summary import Summary, late_sentence
from loadtests.session import Prepared, Rows

WAITING, WARMUP, RUNNING, ENDED, REFUSED = "waiting", "warm-up", "running", "ended", "refused"
_NS: Final = 1_000_000_000
COLUMNS: Final = (*COUNTS, "in_flight", "p50_ms", "p99_ms", "max_ms")


class LiveLoad:
    """The load that runs in this process, or the last one; begun anew by each start of Locust."""

    def __init__(self) -> None:
        self._number = 0
        self._prepared: Prepared | None = None
        self._seconds: Seconds | None = None
        self._start_ns: Callable[[], int] = lambda: 0
        self._settle_ns = 0
        self._summary: Summary | None = None
        self._refusal = ""

    def begin(self, prepared: Prepared, start_ns: Callable[[], int], settle_s: float) -> None:
        """A load starts; its samples arrive here up to `settle_s` after they were taken.

        `start_ns` gives its start on this machine's monotonic clock, 0 while it has not begun.
        """
        self._number += 1
        self._prepared, self._start_ns, self._settle_ns = prepared, start_ns, int(settle_s * _NS)
        self._seconds = Seconds(None if prepared.load.closed_loop else prepared.load.schedule, prepared.warmup_ns)
        self._summary, self._refusal = None, ""

    def add(self, rows: Rows) -> None:
        """Take samples, (n, len(ROW)) int64, of the warm-up too."""
        if self._seconds:
            self._seconds.add(rows, self._measured_from_ns)

    def end(self, summary: Summary) -> None:
        """The load is over, and every sample of it was added."""
        self._summary = summary
        if self._seconds:
            self._seconds.finished = True

    def refuse(self, sentence: str) -> None:
        """The load could not be started, or not be carried out."""
        self._number += 1
        self._prepared = self._seconds = self._summary = None
        self._refusal = sentence

    def snapshot(self, begin: int = 0, number: int = 0) -> dict[str, Any]:
        """All that is shown, for JSON; of the load `number` only the seconds from `begin` on, of another one all.

        `planned` is None where `begin` is not 0: it stays the same.
        """
        phase, elapsed_ns = self._phase()
        shown: dict[str, Any] = {"load": self._number, "phase": phase, "refusal": self._refusal}
        if self._prepared is None or self._seconds is None:
            return shown
        begin = begin if number == self._number else 0
        until = self._until(elapsed_ns)
        begin = min(begin, until)
        return {
            **shown,
            "settings": _settings(self._prepared),
            "warmup_left_s": max(0, -elapsed_ns) / _NS if phase == WARMUP else 0,
            "planned": None if begin else self._seconds.planned(),
            "begin": begin,
            "seconds": self._seconds.table(begin, until, self._in_flight_until(until)),
            "totals": self._seconds.totals(until),
            "verdict": self._verdict(),
        }

    def csv(self) -> str:
        """The seconds as a table for a spreadsheet, a row each."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["second", *COLUMNS])
        if self._seconds:
            until = self._until(self._phase()[1])
            table = self._seconds.table(0, until, self._in_flight_until(until))
            for second in range(until):
                writer.writerow(
                    [second, *("" if table[name][second] is None else table[name][second] for name in COLUMNS)]
                )
        return text.getvalue()

    @property
    def _measured_from_ns(self) -> int:
        return self._start_ns() + (self._prepared.warmup_ns if self._prepared else 0)

    def _phase(self) -> tuple[str, int]:
        """The phase, and the time since the warm-up ended (negative before), ns."""
        if self._refusal:
            return REFUSED, 0
        if self._prepared is None:
            return WAITING, 0
        elapsed_ns = time.monotonic_ns() - self._measured_from_ns if self._start_ns() else -self._prepared.warmup_ns
        if self._summary:
            return ENDED, elapsed_ns
        return (WARMUP if elapsed_ns < 0 else RUNNING), elapsed_ns

    def _until(self, elapsed_ns: int) -> int:
        """Seconds that are over and whose samples are here."""
        assert self._seconds is not None
        if self._summary:
            return self._seconds.seconds
        return max(0, elapsed_ns - self._settle_ns) // _NS

    def _in_flight_until(self, until: int) -> int:
        """A closed loop's requests in flight are known once they ended; an open loop's schedule says who is."""
        assert self._prepared is not None
        if self._summary or not self._prepared.load.closed_loop:
            return until
        return until - -(-self._prepared.load.timeout_ns // _NS) - 1

    def _verdict(self) -> dict[str, Any]:
        """VALID or not with the reasons; while the load runs `valid` is None, or False where that is certain."""
        if self._summary:
            figures = self._summary.latency_ms.model_dump(include={"p50", "p99", "max"})
            figures["requests_per_s"] = self._summary.requests_per_s
            invalid = self._summary.invalid_figures
            return {
                "valid": self._summary.valid,
                "percentile_counts": self._summary.percentile_counts,
                "reasons": self._summary.reasons,
                "notes": [late_sentence(self._summary)] if invalid else [],
                "invalid_figures": invalid,
                **figures,
            }
        assert self._seconds is not None
        dropped = self._seconds.dropped
        reasons = [f"{dropped} arrivals were dropped so far"] if dropped else []
        return {"valid": False if reasons else None, "percentile_counts": None, "reasons": reasons, "notes": []}


def _settings(prepared: Prepared) -> dict[str, Any]:
    names = (
        "loop",
        "engine",
        "protocol",
        "model",
        "arrivals",
        "rate",
        "duration_s",
        "warmup_s",
        "closed_loop",
        "max_in_flight",
    )
    return {**{name: prepared.settings[name] for name in names}, "endpoints": prepared.endpoints}
