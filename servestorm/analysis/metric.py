"""One row of the results: a figure of every engine, with its definition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from servestorm.methods.disturbance import Disturbance

Better = Literal["lower", "higher"]
Source = Literal["runs", "samples", "largest"]


class Row(NamedTuple):
    """A figure before it has values. Its definition stands here and nowhere else."""

    name: str
    """The last part of its key."""
    label: str
    unit: str
    better: Better
    definition: str
    """Of one run's value, in a sentence without a full stop. The figure of several runs is their mean."""


@dataclass(frozen=True)
class Value:
    """A figure of one engine."""

    value: float | None
    """The figure: whatever prints it prints this. The mean over the runs that have it; a percentile that no run has
    answers enough for is the percentile of all counted runs' answers together."""
    sd: float | None
    """Standard deviation (n - 1) of the runs; None under two."""
    n: int
    """Runs behind the mean and sd."""
    runs: list[float | None]
    samples: int | None = None
    """Of a percentile: the answers of all counted runs, in the slices that count for it."""
    valid: bool = True
    """False where only INVALID runs could be used: a hint of the size, never to be quoted or compared. False, with no
    value, where the figure is INVALID in every run that might have it."""
    ci: tuple[float, float] | None = None
    """95 % interval of the value. Of a mean over runs: Student's t, as a factor where every run is over 0. Of a
    percentile of one run, or of all answers together: between two of the samples. None where neither can be had."""
    ci_from: Source | None = None
    """samples: without the scatter between runs, and so too narrow."""
    value_from: Source | None = None
    """runs: the mean over runs. samples: of all counted runs' answers together, so that no verdict can be had.
    largest: the largest of the runs, and only if every run has one: a claim must hold for all of them."""
    disturbed: Disturbance | None = None
    """Why only DISTURBED runs could be used, which are shown and never compared; null where other runs were."""
    rounds: list[int] = field(default_factory=list)
    """The repetition of each of `runs`, in their order: a round, where engines are measured alternately. Empty where a
    run of the row is not one repetition."""

    @property
    def counts(self) -> bool:
        """Whether it may be quoted and compared: it comes from runs that are neither INVALID nor DISTURBED."""
        return self.valid and self.disturbed is None

    @property
    def quotable(self) -> float | None:
        """The value where it may be quoted."""
        return self.value if self.counts else None


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
    definition: str
    """What one run's value is. The figure of several runs is their mean."""
    values: dict[str, Value]
    p: dict[str, float | None]
    """'a|b' for each pair of engines: two-sided p over runs, as that of a verdict without its corrections."""

    def quotable(self) -> dict[str, float]:
        """Each engine's figure, of those that have one that may be quoted."""
        known = {engine: value.quotable for engine, value in self.values.items()}
        return {engine: value for engine, value in known.items() if value is not None}

    def times_as_much(self) -> float | None:
        """The larger figure over the smaller one, where exactly two engines have one over 0 of the same kind."""
        known = self.quotable()
        kinds = {self.values[engine].value_from for engine in known}
        if len(known) != 2 or len(kinds) != 1 or min(known.values()) <= 0:
            return None
        return max(known.values()) / min(known.values())
