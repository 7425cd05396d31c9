"""One row of the results: a figure of every engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from servestorm.methods.disturbance import Disturbance

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Value:
    """A figure of one engine."""

    value: float | None
    """Percentiles: of the samples of all counted runs together. Anything else: the mean over runs."""
    mean: float | None
    sd: float | None
    n: int
    """Runs behind mean and sd."""
    runs: list[float | None]
    samples: int | None = None
    valid: bool = True
    """False where only INVALID runs could be used: a hint of the size, never to be quoted or compared."""
    ci: tuple[float, float] | None = None
    """95 % interval. Over runs: Student's t, on logarithms where every run is over 0, and then of their geometric mean.
    Of a percentile that runs cannot tell: between two of the samples behind it. None where neither can be had."""
    ci_from: Literal["runs", "samples"] | None = None
    """samples: without the scatter between runs, and so too narrow."""
    disturbed: Disturbance | None = None
    """Why only DISTURBED runs could be used, which are shown and never compared; null where other runs were."""

    @property
    def counts(self) -> bool:
        """Whether it may be quoted and compared: it comes from runs that are neither INVALID nor DISTURBED."""
        return self.valid and self.disturbed is None


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    key: str
    scenario: str
    group: str
    """What the runs behind it are runs of: the scenario, with the variant where there are several."""
    label: str
    unit: str
    better: Better
    values: dict[str, Value]
    welch_p: dict[str, float | None]
    """'a|b' for each pair of engines: two-sided p over runs."""


# name, label, unit, which direction is better
Row = tuple[str, str, str, Better]
