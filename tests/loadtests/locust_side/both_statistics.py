"""What our statistics and Locust's own make of the same requests, for the tests beside this file.

A program, because importing Locust patches the process. It reads a JSON object a line,
`{"rows": [...], "shift_ns": N}`. A row is `[scheduled_ns, done_ns, outcome, received_bytes]`; rows stand in the order
in which they ended. It answers with `{"ours": ..., "locusts": ...}`; the latter is what Locust's `log` makes of each
request at its own moment. `"rounding": "whole seconds"` replaces Locust's rounding before, as a person may.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import locust.stats
import numpy as np
from locust.stats import RequestStats, StatsEntry

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from loadtests.generator.jobs import OK
from loadtests.generator.load import ROW
from loadtests.locust_side.locust_stats import entry_of

FIELDS = (
    "num_requests",
    "num_none_requests",
    "num_failures",
    "total_response_time",
    "min_response_time",
    "max_response_time",
    "total_content_length",
    "last_request_timestamp",
)
DICTIONARIES = ("response_times", "num_reqs_per_sec", "num_fail_per_sec")


class Clock:
    """In the place of `time` in Locust's module."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s


def fields(entry: StatsEntry) -> dict:
    plain = {name: getattr(entry, name) for name in FIELDS}
    plain |= {name: sorted(getattr(entry, name).items()) for name in DICTIONARIES}
    return {**plain, "median": entry.median_response_time, "p99": entry.get_response_time_percentile(0.99)}


def ours(rows: list[list[int]], shift_ns: int) -> StatsEntry:
    table = np.zeros((len(rows), len(ROW)), np.int64)
    for at, name in enumerate(("scheduled_ns", "done_ns", "outcome", "received_bytes")):
        table[:, ROW.index(name)] = [row[at] for row in rows]
    stats = RequestStats()
    total = StatsEntry(stats, "n", "m", use_response_times_cache=True)
    for part in np.array_split(table, 3):
        if len(part):
            total.extend(entry_of(stats, "n", "m", part, shift_ns))
    return total


def locusts(rows: list[list[int]], shift_ns: int, clock: Clock) -> StatsEntry:
    entry = StatsEntry(RequestStats(), "n", "m", use_response_times_cache=True)
    for scheduled, done, outcome, received in rows:
        clock.now_s = ((done if done >= 0 else scheduled) + shift_ns) / 1e9
        entry.log(None if done < 0 else (done - scheduled) / 1e6, received)
        if outcome != OK:
            entry.log_error("failed")
    return entry


def main() -> None:
    clock, rounding = Clock(), locust.stats.bucket_response_time
    locust.stats.time = clock
    while line := sys.stdin.readline():
        asked = json.loads(line)
        locust.stats.bucket_response_time = rounding
        if asked.get("rounding"):
            locust.stats.bucket_response_time = lambda ms: int(ms // 1000) * 1000
        rows, shift_ns = asked["rows"], asked["shift_ns"]
        answer = {"ours": fields(ours(rows, shift_ns)), "locusts": fields(locusts(rows, shift_ns, clock))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
