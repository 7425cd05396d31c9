"""May a study stop? Which of its questions are decided at this look, and how many rounds the others need.

A study asks this after each round, and its results ask the same of what it leaves, so that the verdict for which it
stopped is the verdict that it prints. Each look uses all runs so far, and its level is that of
`servestorm.methods.group_sequential`. A question that was decided and is open again as its runs grow counts as open:
what is decided is what the data of the last look decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from servestorm.methods.verdict import Question, Verdict, verdicts

K = TypeVar("K")


@dataclass(frozen=True)
class Decisions(Generic[K]):
    """What a study knows of its questions at a look."""

    verdicts: dict[K, Verdict]
    """With their repeated confidence intervals: those of all looks hold the truth together, as often as 1 - alpha."""

    @property
    def decided(self) -> list[K]:
        """Questions with a winner, or whose sides are equivalent."""
        return [key for key, verdict in self.verdicts.items() if verdict.outcome != "inconclusive"]

    @property
    def open(self) -> list[K]:
        """The others."""
        return [key for key, verdict in self.verdicts.items() if verdict.outcome == "inconclusive"]

    @property
    def may_stop(self) -> bool:
        """Whether every question is decided; there must be one."""
        return bool(self.verdicts) and not self.open

    @property
    def rounds_more(self) -> int | None:
        """So many more rounds would probably decide all open questions that rounds in reach can decide.

        None where nothing is open, or where no open question is within reach.
        """
        return max((more for key in self.open if (more := self.verdicts[key].runs_more) is not None), default=None)


def decisions(
    family: Mapping[K, Question], margin: float = 0.05, alpha: float = 0.05, *, of: int | None = None
) -> Decisions[K]:
    """The verdicts of a family at this look: each question has its runs by round, and the shares of its looks.

    margin and alpha as in `servestorm.methods.verdict.verdicts`, which raises ValueError for the same. Where these are
    some questions `of` so many, a winner must win at alpha / of, the level that Holm's correction asks of the smallest
    p of all, so that it wins in the whole family too. An equivalence is no test, and needs no correction.
    """
    found = verdicts(family, margin, alpha)
    if of is None:
        return Decisions(found)
    alone = {key: verdicts({key: question}, margin, alpha / of)[key] for key, question in family.items()}
    return Decisions({key: _stricter(verdict, alone[key]) for key, verdict in found.items()})


def _stricter(verdict: Verdict, strict: Verdict) -> Verdict:
    if verdict.outcome == "equivalent" or strict.outcome in ("A", "B"):
        return verdict
    return replace(verdict, outcome="inconclusive")
