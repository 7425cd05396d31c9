"""The axis of ratios, shared by the sections that draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

NEAR: Final = 1.6
"""Up to this factor between its ends, an axis has ticks at twentieths."""


def ratio_axis(axes: Axes, ratios: Sequence[float], narrow: bool) -> None:
    """A logarithmic x axis with room for the ratios, and few ticks at round numbers: a ratio and its inverse are
    equally far from 1.
    """
    low, high = min(ratios), max(ratios)
    room = (high / low) ** 0.06
    low, high = low / room, high * room
    if high / low < NEAR:
        steps = [tenth / 20 for tenth in range(1, 60, 2 if narrow else 1)]
    elif high / low < 40:
        steps = [0.1, 0.2, 0.5, 1, 2, 5, 10] if narrow else [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10]
    else:
        steps = [step * 10.0**decade for decade in range(-6, 7) for step in ((1,) if narrow else (1, 2, 5))]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if low <= step <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_times))


def _times(value: float, _position: object = None) -> str:
    return f"× {value:,.3g}"
