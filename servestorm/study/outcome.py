"""How a run of a study ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CellState = Literal["complete", "failed", "interrupted"]


@dataclass(frozen=True)
class CellOutcome:
    """outcome.json: how a run ended."""

    state: CellState
    reason: str | None
    """Why it did not complete."""
    started_at: str
    ended_at: str
    scraper: str
    """What read the servers' metrics."""
    fault_of: str | None = None
    """The cell of the round whose fault it was, where that is known: its own id, or a neighbour's."""
