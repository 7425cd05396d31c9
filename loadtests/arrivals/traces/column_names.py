"""What a column's name says of its values: times, gaps or counts, and their unit."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

Role = Literal["times", "intervals", "counts", "unknown"]

_UNITS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), "ns"),
}
_TIMES: Final = frozenset(("t", "ts", "time", "times", "timestamp", "timestamps", "datetime", "date", "arrival", "at"))
_TIMES_AFTER: Final = frozenset(("arrived", "start", "started", "begin", "sent", "submitted", "offset"))
_NOT_ARRIVALS: Final = frozenset(
    ("end", "ended", "finish", "finished", "done", "completed", "elapsed", "duration", "latency", "response", "service")
)
_INTERVALS: Final = frozenset(("interval", "intervals", "gap", "gaps", "delta", "interarrival", "inter", "iat"))
_COUNTS: Final = frozenset(("count", "counts", "n", "requests", "invocations", "arrivals", "number", "num"))


class NameMeaning(NamedTuple):
    """Of a column's name."""

    role: Role
    unit: str | None
    """s, ms, us or ns; None where the name does not say."""


def meaning_of(name: str) -> NameMeaning:
    """Role and unit by the words of a name: `arrival_time_ms` holds times in milliseconds."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    unit = _UNITS[words[-1]] if len(words) > 1 and words[-1] in _UNITS else None
    rest = set(words[:-1] if unit else words)
    if rest & _INTERVALS:
        return NameMeaning("intervals", unit)
    if rest & _COUNTS and not rest & (_TIMES | _NOT_ARRIVALS):
        return NameMeaning("counts", unit)
    if rest & (_TIMES | _TIMES_AFTER) and not rest & _NOT_ARRIVALS:
        return NameMeaning("times", unit)
    return NameMeaning("unknown", unit)
