"""How many requests of a closed loop were under way: fewer than it asks for while its slots rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True)
class SlotUse:
    """What the slots of a closed loop did from the end of the warm-up to the last answer before the load's end."""

    mean_in_flight: float
    """Requests under way on average."""
    rested_s: float
    """Seconds for which slots had no request under way, over all slots."""


def slot_use(samples: Path, slots: int, from_ns: int, until_ns: int) -> SlotUse | None:
    """Of a closed loop of `slots` requests, from samples.parquet; None where none ended after `from_ns`.

    Times are nanoseconds of the samples' clock. A request of the warm-up counts for what of it lies after `from_ns`.
    """
    under_way_ns = ended_ns = 0
    with pq.ParquetFile(samples) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["scheduled_ns", "done_ns"])
            table = table.filter(pc.is_valid(table["done_ns"]))
            begin_ns = np.maximum(table["scheduled_ns"].to_numpy(), from_ns)
            end_ns = np.minimum(table["done_ns"].to_numpy(), until_ns)
            under_way_ns += int(np.maximum(end_ns - begin_ns, 0).sum())
            ended_ns = max(ended_ns, int(end_ns.max(initial=0)))
    span_ns = ended_ns - from_ns
    if span_ns <= 0:
        return None
    return SlotUse(under_way_ns / span_ns, max(slots * span_ns - under_way_ns, 0) / 1e9)
