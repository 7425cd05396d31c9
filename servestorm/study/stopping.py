"""When a study with a budget ends: after every round its questions are judged, and what is decided is not asked again.

The rule is that of servestorm.methods.decisions, over the run directory as it lies there, so that the verdicts for
which a study stops are those that its results print. See docs/adr/0007-interleaved-slices.md.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servestorm.methods.decisions import Decisions
from servestorm.plan.budget import LEAST_ROUNDS
from servestorm.plan.cells import TAKE_TURNS, Cell, variants_of
from servestorm.plan.labels import SCENARIO_LABELS
from servestorm.plan.questions import group_name
from servestorm.plan.study_plan import Plan
from servestorm.rundir.files import JsonObject
from servestorm.rundir.record import RunRecord, read_run
from servestorm.study.expected_time import expected_s
from servestorm.study.live_verdicts import Key, family_size, live_decisions, live_questions

FIRST_LOOK_ROUNDS: Final = 3
"""Rounds before the first look: with fewer, Student's t asks for differences that no study should wait for."""
_LEAST_STEP: Final = 1e-4
"""Between the shares of two looks."""

Round = Sequence[Cell]


@dataclass
class _Group:
    """The rounds of one scenario under one variant."""

    done: int = 0
    """Rounds that ran, those that failed too."""
    decided: bool = False
    looks: list[float] = field(default_factory=list)
    """Shares of the time for rounds that had passed when its questions were judged."""
    lengths_s: list[float] = field(default_factory=list)
    """Of its rounds."""


class Stopping:
    """Says which round comes next, and remembers the looks. `clock` gives seconds."""

    def __init__(
        self,
        plan: Plan,
        rounds: Sequence[Round],
        resume: RunRecord | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rounds` are all rounds of the study, `resume` what it left where it goes on."""
        assert plan.budget is not None
        self._plan, self._budget_s, self._clock = plan, plan.budget, clock
        self._variants = variants_of(plan)
        self._groups = {name: _Group() for cells in rounds if (name := self._name(cells))}
        spent = resume.study.budget_spent if resume else None
        self._begun_s = clock() - (spent.all_s if spent else 0.0)
        self._before_rounds_s = spent.before_rounds_s if spent else None
        self._round_begun_s = clock()
        if resume:
            self._take_over(resume, rounds)

    def _take_over(self, record: RunRecord, rounds: Sequence[Round]) -> None:
        complete = {cell.cell.id for cell in record.cells if cell.complete}
        for cells in rounds:
            if (name := self._name(cells)) and all(cell.id in complete for cell in cells):
                self._groups[name].done += 1
        for name, looks in record.study.looks.items():
            self._groups[name].looks = list(looks)
        decided = self._decisions(record) if record.study.looks else {}
        for name in record.study.looks:
            self._groups[name].decided = name in decided and decided[name].may_stop

    @property
    def spent_s(self) -> float:
        """Seconds since the study began, without those in which it was stopped."""
        return self._clock() - self._begun_s

    def next_round(self, pending: deque[Round]) -> Round:
        """Take the next round that is worth its time and fits into the budget; empty where none is left.

        The rounds before it that are not are dropped. What a budget does not repeat is always run.
        """
        while pending:
            cells = pending.popleft()
            name = self._name(cells)
            if name is None or self._is_worth_it(name, cells, pending):
                if name and self._before_rounds_s is None:
                    self._before_rounds_s = self.spent_s
                self._round_begun_s = self._clock()
                return cells
        return ()

    def _is_worth_it(self, name: str, cells: Round, pending: Sequence[Round]) -> bool:
        group = self._groups[name]
        if group.done < LEAST_ROUNDS:
            return True  # one instance of each engine would say nothing about how instances differ
        return (
            not group.decided and self.spent_s + self._length_s(group, cells) + self._rest_s(pending) <= self._budget_s
        )

    def _length_s(self, group: _Group, cells: Round) -> float:
        return sum(group.lengths_s) / len(group.lengths_s) if group.lengths_s else expected_s(self._plan, cells)

    def _rest_s(self, pending: Sequence[Round]) -> float:
        """What the rounds will take that are run whatever is decided."""
        return sum(expected_s(self._plan, cells) for cells in pending if self._name(cells) is None)

    def look(self, cells: Round, path: Path, pending: Sequence[Round]) -> Iterator[str]:
        """Judge the questions of the round that has just ended; gives what was seen, for the user."""
        name = self._name(cells)
        if name is None:
            return
        group = self._groups[name]
        group.done += 1
        group.lengths_s.append(self._clock() - self._round_begun_s)
        if group.done < FIRST_LOOK_ROUNDS:
            return
        group.looks.append(self._share(group, pending))
        found = self._decisions(read_run(path)).get(name, Decisions({}))
        group.decided = found.may_stop
        yield _seen(cells, group, found)

    def _share(self, group: _Group, pending: Sequence[Round]) -> float:
        """Of the time for rounds that has passed; it grows with every look and stays under 1, which is the end's."""
        before_s = self._before_rounds_s or 0.0
        for_rounds_s = max(1.0, self._budget_s - before_s - self._rest_s(pending))
        last = group.looks[-1] if group.looks else 0.0
        share = min(1 - _LEAST_STEP, (self.spent_s - before_s) / for_rounds_s)
        return max(share, last + (1 - last) * _LEAST_STEP)

    def _decisions(self, record: RunRecord) -> dict[str, Decisions[Key]]:
        questions = live_questions(record, self.looks)
        return live_decisions(questions, record.study.plan, family_size(record.study, self._groups))

    def end(self) -> None:
        """The study has its last round: what is still open is judged for the last time, with all the error there is."""
        for group in self._groups.values():
            if group.looks and not group.decided:
                group.looks[-1] = 1.0

    @property
    def looks(self) -> dict[str, list[float]]:
        """For study.json: the shares at which each group's questions were judged."""
        return {name: list(group.looks) for name, group in self._groups.items() if group.looks}

    @property
    def record(self) -> JsonObject:
        """What study.json holds of it."""
        spent: JsonObject = {"all_s": self.spent_s, "before_rounds_s": self._before_rounds_s}
        return {"looks": {name: list(looks) for name, looks in self.looks.items()}, "budget_spent": spent}

    def _name(self, cells: Round) -> str | None:
        """The group of a round that is repeated; None of any other."""
        cell = cells[0]
        return group_name(cell.scenario, self._variants[cell.variant].label) if cell.scenario in TAKE_TURNS else None


def _seen(cells: Round, group: _Group, found: Decisions[Key]) -> str:
    """'Steady load after 5 rounds: p50 decided, p99 open; about 3 more rounds would tell.'"""
    parts = [f"{key[0].rpartition('.')[2]} {'decided' if key in found.decided else 'open'}" for key in found.verdicts]
    rest = "; it is not loaded again" if group.decided else ""
    if found.rounds_more:
        rest = f"; about {found.rounds_more} more round{'s' if found.rounds_more > 1 else ''} would tell"
    return (
        f"{SCENARIO_LABELS[cells[0].scenario]} after {group.done} rounds: {', '.join(parts) or 'no run counts'}{rest}."
    )
