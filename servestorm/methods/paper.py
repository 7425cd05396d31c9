"""A simple table's numbers, as in the study that this tool repeats: three runs, mean, SD, t and p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from servestorm.methods.welch import finite_mean, known, welch

PAPER_RUNS = 3
PAPER_ALPHA = 0.05


@dataclass(frozen=True)
class Paper:
    """The plain form of the study that this tool repeats: three runs each, no correction, no equivalence."""

    n_a: int
    n_b: int
    mean_a: float | None
    mean_b: float | None
    sd_a: float | None
    sd_b: float | None
    """Sample standard deviations (n - 1)."""
    t: float | None
    """Welch's t of mean_b - mean_a."""
    df: float | None
    p: float | None
    significant: bool | None
    """p < 0.05; None where there is no p."""


def paper(a: Sequence[float | None], b: Sequence[float | None]) -> Paper:
    """Mean, standard deviation, t and p < 0.05 of the first three runs of each side that have a number."""
    first, second = known(a)[:PAPER_RUNS], known(b)[:PAPER_RUNS]
    test = welch(first, second)
    sd_a, sd_b = (float(np.std(side, ddof=1)) if len(side) > 1 else None for side in (first, second))
    return Paper(
        n_a=len(first),
        n_b=len(second),
        mean_a=finite_mean(first),
        mean_b=finite_mean(second),
        sd_a=sd_a,
        sd_b=sd_b,
        t=test.t if test else None,
        df=test.df if test else None,
        p=test.p if test else None,
        significant=test.p < PAPER_ALPHA if test else None,
    )
