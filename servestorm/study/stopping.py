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
from servestorm.plan.cells import TAKE_TURNS, Cell, loads_of, variants_of
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
    """The loads of one scenario under one variant: one in each round."""

    done: int = 0
    """Of those that ran, those that failed too."""
    decided: bool = False
    looks: list[float] = field(default_factory=list)
    """Shares of the time for rounds that had passed when its questions were judged."""


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
        self._groups = {name: _Group() for cells in rounds for name in self._names(cells)}
        self._lengths_s: dict[tuple[str, ...], list[float]] = {}
        """Of the rounds with the same loads."""
        spent = resume.study.budget_spent if resume else None
        self._begun_s = clock() - (spent.all_s if spent else 0.0)
        self._before_rounds_s = spent.before_rounds_s if spent else None
        self._round_begun_s = clock()
        if resume:
            self._take_over(resume, rounds)

    def _take_over(self, record: RunRecord, rounds: Sequence[Round]) -> None:
        complete = {cell.cell.id for cell in record.cells if cell.complete}
        for load in (load for cells in rounds for load in loads_of(cells)):
            for name in self._names(load):
                self._groups[name].done += all(cell.id in complete for cell in load)
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
        """Take the next round that fits into the budget, with the loads that are worth their time; empty where none is.

        The rounds before it that are not are dropped. What a budget does not repeat is always run.
        """
        while pending:
            planned = pending.popleft()
            if cells := self._worth_running(planned, pending):
                if self._names(planned) and self._before_rounds_s is None:
                    self._before_rounds_s = self.spent_s
                self._round_begun_s = self._clock()
                return cells
        return ()

    def _worth_running(self, planned: Round, pending: Sequence[Round]) -> Round:
        """The loads of a round with an open question, as many as the budget holds; all of one that is not repeated."""
        if not self._names(planned):
            return planned
        open_loads = [load for load in loads_of(planned) if not self._group_of(load).decided]
        choices = [_together(open_loads), *open_loads]
        return next((cells for cells in choices if cells and self._fits(cells, pending)), ())

    def _fits(self, cells: Round, pending: Sequence[Round]) -> bool:
        """Whether the budget holds these loads; one instance of each engine would not say how instances differ."""
        if any(self._group_of(load).done < LEAST_ROUNDS for load in loads_of(cells)):
            return True
        return self.spent_s + self._length_s(cells) + self._rest_s(pending) <= self._budget_s

    def _length_s(self, cells: Round) -> float:
        """Of a round with these loads: as those before it, or guessed."""
        if known_s := self._lengths_s.get(self._names(cells)):
            return sum(known_s) / len(known_s)
        return expected_s(self._plan, cells)

    def _rest_s(self, pending: Sequence[Round]) -> float:
        """What the rounds will take that are run whatever is decided."""
        return sum(expected_s(self._plan, cells) for cells in pending if not self._names(cells))

    def look(self, cells: Round, path: Path, pending: Sequence[Round]) -> Iterator[str]:
        """Judge the questions of the round that has just ended; gives what was seen, for the user."""
        if not (names := self._names(cells)):
            return
        self._lengths_s.setdefault(names, []).append(self._clock() - self._round_begun_s)
        groups = {name: self._groups[name] for name in names}
        for group in groups.values():
            group.done += 1
        judged = {name: group for name, group in groups.items() if group.done >= FIRST_LOOK_ROUNDS}
        for group in judged.values():
            group.looks.append(self._share(group, pending))
        decisions = self._decisions(read_run(path)) if judged else {}
        for name, group in judged.items():
            found = decisions.get(name, Decisions({}))
            group.decided = found.may_stop
            yield _seen(name, group, found)

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

    def _names(self, cells: Round) -> tuple[str, ...]:
        """The groups of the loads of a round that is repeated; none of any other."""
        firsts = [load[0] for load in loads_of(cells) if load[0].scenario in TAKE_TURNS]
        return tuple(group_name(cell.scenario, self._variants[cell.variant].label) for cell in firsts)

    def _group_of(self, load: Round) -> _Group:
        (name,) = self._names(load)
        return self._groups[name]


def _together(loads: Sequence[Round]) -> Round:
    return [cell for load in loads for cell in load]


def _seen(name: str, group: _Group, found: Decisions[Key]) -> str:
    """'Steady load after 5 rounds: p50 decided, p99 open; about 3 more rounds would tell.'"""
    parts = [f"{key[0].rpartition('.')[2]} {'decided' if key in found.decided else 'open'}" for key in found.verdicts]
    rest = "; it is not loaded again" if group.decided else ""
    if found.rounds_more:
        rest = f"; about {found.rounds_more} more round{'s' if found.rounds_more > 1 else ''} would tell"
    label = SCENARIO_LABELS[name.partition("[")[0]]
    return f"{label} after {group.done} rounds: {', '.join(parts) or 'no run counts'}{rest}."
