"""When a study looked at its verdicts before its time was over, and whether it stopped for them."""

from __future__ import annotations

from dataclasses import dataclass

from servestorm.analysis.results import Results


@dataclass(frozen=True)
class Looks:
    """The looks at the verdicts of one group of runs."""

    title: str
    """Of the group."""
    looks: int
    rounds: int
    """That were complete at the last look."""
    stopped_early: bool
    """Whether the study went on no longer, because every question was decided."""


def looks_of(results: Results) -> list[Looks]:
    """The looks at each group of runs that was looked at, in the order of the groups."""
    found = []
    for group, title in results.groups.items():
        shares = results.study.looks.get(group)
        if shares:
            rounds = {run.repetition for run in results.runs if run.group == group and run.state == "complete"}
            early = shares[-1] < 1 and results.study.came_to_its_end
            found.append(Looks(title, len(shares), len(rounds), early))
    return found
