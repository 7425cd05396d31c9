"""How many runs of a study ended, and how many of those count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servestorm.analysis.run import Run


@dataclass(frozen=True)
class RunCounts:
    """Runs of a study; one of a search or a sweep is one run."""

    loads: int
    """Runs under load that were judged VALID or INVALID."""
    valid: int
    """Of those."""
    invalid: int
    disturbed: int
    """Of all runs, cold starts too."""
    starts: int
    """Cold starts."""
    complete_starts: int
    """Of those."""
    trainings: int
    complete_trainings: int
    """Of those."""


def run_counts(runs: Sequence[Run]) -> RunCounts:
    """The counts over all runs of a study."""
    starts = [run for run in runs if run.scenario == "coldstart"]
    trainings = [run for run in runs if run.scenario == "training"]
    return RunCounts(
        loads=sum(run.valid is not None for run in runs),
        valid=sum(run.valid is True for run in runs),
        invalid=sum(run.valid is False for run in runs),
        disturbed=sum(run.disturbed is not None for run in runs),
        starts=len(starts),
        complete_starts=sum(run.state == "complete" for run in starts),
        trainings=len(trainings),
        complete_trainings=sum(run.state == "complete" for run in trainings),
    )
