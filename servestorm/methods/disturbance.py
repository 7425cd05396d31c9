"""When a load is DISTURBED: by what other programs and other machines did meanwhile, whatever was measured.

The rule reads facts of the machine alone. It knows neither the engine nor a latency, so it cannot favour a side.

A share of the cores that is lost makes whatever needs them at least 1 / (1 - share) times as long. Steal of 5 % costs
5 %, as much as the margin within which two engines count as equal, and takes a core away whether or not it is busy.
Other programs may take three times as much, because the kernel runs them on a core that idles while there is one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal

OTHER_PERCENT: Final = 15.0
STEAL_PERCENT: Final = 5.0
SWAPPED_PERCENT: Final = 1.0

Cause = Literal["other_load", "steal", "servers_swapped"]

REMEDIES: Final[dict[Cause, str]] = {
    "other_load": "end them, or give the study cores that they do not use",
    "steal": "use a machine with cores of its own",
    "servers_swapped": "free memory or switch swap off",
}
"""What a person can do about each cause."""


@dataclass(frozen=True)
class DisturbanceLimits:
    """Percent that a load may reach and still count; infinity where a share is not judged."""

    other_percent: float = OTHER_PERCENT
    """Of the study's cores, used by other programs."""
    steal_percent: float = STEAL_PERCENT
    """Of the study's cores, given to other machines by the hypervisor."""
    swapped_percent: float = SWAPPED_PERCENT
    """Of the servers' memory, in swap at the end."""


@dataclass(frozen=True)
class MachineShares:
    """What the machine did during a load, in percent as in DisturbanceLimits; None is what is unknown."""

    other_percent: float | None
    steal_percent: float | None
    swapped_percent: float | None = None


@dataclass(frozen=True)
class Disturbance:
    """Why a load is DISTURBED."""

    cause: Cause
    percent: float
    """The share that was reached, in percent of the study's cores, or of the servers' memory."""
    limit_percent: float
    reason: str
    """For a reader, without a capital or a full stop, such as: other programs used 74 % of the study's cores."""


def disturbance(shares: MachineShares, limits: DisturbanceLimits, but: Collection[Cause] = ()) -> Disturbance | None:
    """Why a load with these shares is DISTURBED, by the share that is farthest over its limit; None where none is.

    The causes of `but` are not judged: they were judged slice by slice.
    """
    judged: tuple[tuple[Cause, float | None, float], ...] = (
        ("other_load", shares.other_percent, limits.other_percent),
        ("steal", shares.steal_percent, limits.steal_percent),
        ("servers_swapped", shares.swapped_percent, limits.swapped_percent),
    )
    return worst(
        Disturbance(cause, percent, limit, reason_of(cause, percent))
        for cause, percent, limit in judged
        if cause not in but and percent is not None and percent > limit
    )


def worst(disturbances: Iterable[Disturbance]) -> Disturbance | None:
    """The one that is farthest over its limit; None where there is none."""
    return max(disturbances, key=lambda one: one.percent / one.limit_percent, default=None)


def share_percent(used_s: float | None, elapsed_s: float | None, cores: int) -> float | None:
    """Percent of the time of so many cores; None where it is unknown."""
    if used_s is None or not elapsed_s or not cores:
        return None
    percent = 100 * used_s / (elapsed_s * cores)
    return percent if math.isfinite(percent) else None


def reason_of(cause: Cause, percent: float) -> str:
    """What happened, for a reader, without a capital or a full stop."""
    return {
        "other_load": f"other programs used {percent:.0f} % of the study's cores",
        "steal": f"the hypervisor took {percent:.0f} % of the study's cores for other machines (steal)",
        "servers_swapped": f"{percent:.0f} % of the servers' memory was in swap",
    }[cause]
