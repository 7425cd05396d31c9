"""What happened to a deployment, as far as the methods read it."""

from __future__ import annotations

from typing import Protocol


class Event(Protocol):
    """Something that happened at one moment: to one replica, or to the deployment as a whole."""

    @property
    def name(self) -> str:
        """What happened, such as 'ready'."""

    @property
    def t_ns(self) -> int:
        """When, in nanoseconds of the monotonic clock."""

    @property
    def replica(self) -> int | None:
        """Which replica; None for the deployment as a whole."""

    @property
    def detail(self) -> str:
        """More of it, such as '1 -> 3'; '' where there is none."""
