"""Real studies of one engine against itself, or against a slower copy: each round holds two deployments of it.

`same_engine.py` and `known_slowdown.py` use it. Everything is the product's own: rounds, slices, validity, figures and
verdicts; only the cells are made here, because a plan names each engine once.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from models.manifest import ModelDir
from servestorm.analysis.results import compute
from servestorm.analysis.run import Run
from servestorm.methods.verdict import Question, Verdict, verdicts
from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan, parse_plan
from servestorm.rundir.record import read_run
from servestorm.study.context import StudyContext
from servestorm.study.progress import Display
from servestorm.study.runner import Study

QUESTIONS = ("p50", "p99", "cpu_ms_per_image")
SIDES = ("side A", "side B")
RAW = Path(__file__).resolve().parent / "raw"
Pairs = list[list[float | None]]
"""[round][side]"""


@dataclass(frozen=True)
class SidedContext(StudyContext):
    """Cells of side B serve a model of their own."""

    other_model: ModelDir | None = None
    others: frozenset[str] = frozenset()
    """Cells of side B."""

    def model(self, cell: Cell) -> ModelDir:
        return self.other_model if self.other_model and cell.id in self.others else super().model(cell)


class TwoSided(Study):
    """A study of one engine with two cells in each round, in random order."""

    def __init__(self, plan: Plan, text: str, out: Path, other_model: ModelDir | None = None) -> None:
        super().__init__(plan, text, out)
        self.other_model = other_model
        self.side_of: dict[str, int] = {}
        order, cells = random.Random(plan.seed), []
        for cell in self.cells:
            for side in order.sample((0, 1), 2):
                cells.append(replace(cell, index=len(cells)))
                self.side_of[cells[-1].id] = side
        self.cells = cells

    def _run_rounds(self, models: Sequence[ModelDir], rounds: Sequence[Sequence[Cell]], display: Display) -> None:
        together: dict[int, list[Cell]] = {}
        for cell in (cell for cells in rounds for cell in cells):
            together.setdefault(cell.repetition, []).append(cell)
        super()._run_rounds(models, list(together.values()), display)

    @contextmanager
    def _shared_by_all(self, models: Sequence[ModelDir]) -> Iterator[StudyContext]:
        others = frozenset(cell for cell, side in self.side_of.items() if side)
        with super()._shared_by_all(models) as context:
            shared = (getattr(context, field.name) for field in fields(StudyContext))
            yield SidedContext(*shared, self.other_model, others)


def plan_text(name: str, engine: str, seed: int, rounds: int, slices: int, rate: float, warm_up_s: float) -> str:
    """A plan of steady load on one engine, in slices of 2 s."""
    return f"""\
name: {name}
engines: [{engine}]
cold_starts: 0
repetitions: {rounds}
steady: {{ rate_per_s: {rate:g}, duration_s: {2 * slices}, slice_s: 2, warmup_s: {warm_up_s:g} }}
seed: {seed}
"""


def carried_out(text: str, out: Path, other_model: ModelDir | None = None) -> dict:
    """Run the study; its numbers by round and side, and the verdict on each question, for the raw table."""
    began_s = time.monotonic()
    study = TwoSided(parse_plan(text, "the plan of this benchmark"), text, out, other_model)
    path = study.carry_out()
    runs = compute(read_run(path)).runs
    rounds = {f"steady.{name}": pairs(name, runs, study.side_of) for name in QUESTIONS}
    judged = verdicts({name: question(of_it) for name, of_it in rounds.items()}, study.plan.margin_percent / 100)
    return {
        "run": path.name,
        "seconds": round(time.monotonic() - began_s, 1),
        "rounds": rounds,
        "left_out": [reason for run in runs if not run.counts for reason in run.reasons or [str(run.disturbed)]],
        "verdicts": {name: shown(verdict) for name, verdict in judged.items()},
    }


def pairs(name: str, runs: Sequence[Run], side_of: dict[str, int]) -> Pairs:
    """A number of every round, of both sides; None of a run that does not count."""
    rounds: dict[int, list[float | None]] = {}
    for run in runs:
        number = run.numbers.get(name) if run.counts else None
        rounds.setdefault(run.repetition, [None, None])[side_of[run.id]] = number
    return [rounds[number] for number in sorted(rounds)]


def question(rounds: Pairs) -> Question:
    a, b = ([pair[side] for pair in rounds] for side in (0, 1))
    return Question(a, b, "lower", rounds=(range(len(rounds)), range(len(rounds))), names=SIDES)


def shown(verdict: Verdict) -> dict:
    names = ("outcome", "ratio", "ratio_ci", "p", "p_holm", "rounds", "reason")
    return {name: getattr(verdict, name) for name in names}


def rows_of(table: Path) -> list[dict]:
    """The raw table: a line for each study so far."""
    return [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []


def append(table: Path, row: dict) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a") as file:
        file.write(json.dumps(row) + "\n")


def line(row: dict, *first: object) -> str:
    """Markdown: one line for each question of a study."""
    lines = []
    for name, verdict in row["verdicts"].items():
        ends = verdict["ratio_ci"]
        interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "none"
        ratio = "none" if verdict["ratio"] is None else f"{verdict['ratio']:.3f}"
        cells = (*first, name, verdict["rounds"] or 0, ratio, interval, verdict["outcome"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
