"""Sums of readings of which some may be missing."""

from __future__ import annotations

from collections.abc import Sequence


def sum_if_known(values: Sequence[float | None]) -> float | None:
    """The sum; None where one of the values is unknown, or where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None
