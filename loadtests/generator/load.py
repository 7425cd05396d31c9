"""What one generator is asked to send: its targets, the arrivals, and the columns of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals.blocks import BlockSchedule
from loadtests.arrivals.measured_time import ALWAYS, MeasuredTime
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.endpoints_file import Made
from serving.addresses import ResolvedAddress
from serving.hidden_values import NOTHING_HIDDEN, HiddenValues

ROW: Final = (
    "scheduled_ns",
    "sent_ns",
    "first_byte_ns",
    "done_ns",
    "outcome",
    "status",
    "sent_bytes",
    "received_bytes",
    "endpoint",
    "image",
    "correct",
)
"""One sample, in the order in which it lies in a chunk: len(ROW) int64 in native byte order."""


RETRY_NS: Final = 10_000_000
"""At least so long a slot of a closed loop rests after a failure, or where it has no free connection."""

Check = Callable[[int, bytes], tuple[int, int, str]]
"""(image, body of a reply) -> (outcome, correct, reason); the reason is empty where the outcome is OK."""


@dataclass(frozen=True)
class Target:
    """Where requests go and what they are."""

    addresses: list[ResolvedAddress]
    requests: list[list[PreparedRequest]]
    """One list an endpoint: the prepared request of each image."""
    grpc: bool
    check: Check
    checked: bool = False
    """True where the check knows the right answers."""
    make: Callable[[str], Made] | None = None
    """A further endpoint by its address; raises LoadTestError."""
    images: Sequence[int] = ()
    """How many images each prepared request carries; empty for engine http."""
    hidden: HiddenValues = NOTHING_HIDDEN
    """Of the headers: no reason for a failure, which may quote a reply, repeats them."""


@dataclass(frozen=True)
class LoadSpec:
    """How requests are offered."""

    schedule: BlockSchedule
    """Open loop: the arrivals, those of the warm-up included. Closed loop: none."""
    duration_ns: int
    """Of the whole load, warm-up and waits between turns included."""
    timeout_ns: int
    max_in_flight: int
    connections: int
    """Most connections an endpoint; one that was left because nothing came does not count."""
    closed_loop: int = 0
    """Requests kept under way; 0 means open loop."""
    measured: MeasuredTime = ALWAYS
    """After the start: arrivals due at other times are warm-up, and count in no figure."""
    active: MeasuredTime = ALWAYS
    """After the start: when the load is on, warm-up included; a load that takes turns waits in between."""
    requests: NDArray[np.int32] | None = None
    """Open loop: (arrivals,) index of the prepared request that each takes; None: all in turn."""
    give_up_in_flight: int = 0
    """Open loop: the load ends when an arrival is due while so many requests are under way; 0 means never."""
