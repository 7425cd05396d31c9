"""A study with a budget: which round comes next, when its questions are judged, and what study.json says of it."""

from __future__ import annotations

import functools
import json
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from servestorm.analysis.results import compute
from servestorm.errors import StudyError
from servestorm.methods.decisions import Decisions
from servestorm.methods.verdict import Question, verdict
from servestorm.plan.cells import cells_of, loads_of, rounds_of
from servestorm.plan.study_plan import parse_plan
from servestorm.report.settings import load_text
from servestorm.rundir.record import read_run
from servestorm.rundir.shapes.study import PlanFile
from servestorm.study import runner, scraper, stopping, study_run
from servestorm.study.live_verdicts import asked_in, family_size, live_decisions, live_questions
from servestorm.study.runner import Study
from servestorm.study.stopping import Stopping
from tests.stand_ins.made_up_machine import QUIET, MadeUpMachine
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

LOADS = {
    "repetitions": None,
    "cold_starts": 0,
    "budget": 900,
    "steady": {"rate_per_s": 100, "duration_s": 8, "warmup_s": 1},
    "bursty": {"base_rate": 50, "peak_rate": 100, "on_s": 1, "off_s": 1, "duration_s": 4, "warmup_s": 1},
}
DECIDED = verdict([1.0, 1.1, 1.05], [2.0, 2.1, 2.05], "lower")
OPEN = replace(DECIDED, outcome="inconclusive")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Course:
    """A study whose rounds last as long as they are said to, and whose verdicts are given."""

    def __init__(self, monkeypatch, tmp_path: Path, **changes) -> None:
        self.plan = parse_plan(toy_plan(tmp_path / "toy", **{**LOADS, **changes}), "p")
        self.clock, self.verdicts = Clock(), {"steady": [OPEN], "bursty": [OPEN]}
        self.rounds = rounds_of(self.plan, cells_of(self.plan))
        self.pending = deque(self.rounds)
        self.stopping = Stopping(self.plan, self.rounds, clock=self.clock)
        monkeypatch.setattr(stopping, "read_run", lambda _: SimpleNamespace(study=SimpleNamespace(plan=None)))
        monkeypatch.setattr(Stopping, "_decisions", lambda _, __: self.given())
        self.ran: list[str] = []

    def given(self):
        return {
            group: Decisions({(f"{group}.{place}", "a", "b"): one for place, one in enumerate(found)})
            for group, found in self.verdicts.items()
        }

    def run(self, round_s: dict[str, float], most: int = 100) -> list[str]:
        """The scenarios of the loads that ran, in order; a round lasts as long as its loads do."""
        while len(self.ran) < most and (cells := self.stopping.next_round(self.pending)):
            scenarios = [load[0].scenario for load in loads_of(cells)]
            self.ran += scenarios
            self.clock.now_s += sum(round_s[scenario] for scenario in scenarios)
            self.lines = list(self.stopping.look(cells, Path(), self.pending))
        return self.ran


def test_rounds_go_on_until_the_next_one_would_not_fit_into_the_budget(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path, scaling=None)
    course.run({"steady": 60, "bursty": 90})
    assert course.clock.now_s - 1000 <= 900
    assert 900 - (course.clock.now_s - 1000) < 60 or not course.pending
    assert course.ran.count("steady") >= 5 and course.ran.count("bursty") >= 5


def test_a_decided_scenario_leaves_its_time_to_the_other(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path, scaling=None)
    course.verdicts["steady"] = [DECIDED]
    course.run({"steady": 60, "bursty": 90})
    assert course.ran.count("steady") == 3 and course.ran.count("bursty") == 8
    assert course.stopping.looks["steady"][-1] < 1 and len(course.stopping.looks["steady"]) == 1


def test_both_loads_of_a_round_are_run_while_both_are_open_and_one_alone_where_only_that_still_fits(
    monkeypatch, tmp_path
):
    course = Course(monkeypatch, tmp_path, scaling=None, budget=400)
    assert course.run({"steady": 40, "bursty": 90}) == ["steady", "bursty"] * 3
    course = Course(monkeypatch, tmp_path, scaling=None, budget=460)
    monkeypatch.setattr(stopping, "expected_s", lambda _, cells: {"steady": 40, "bursty": 90}[cells[0].scenario])
    assert course.run({"steady": 40, "bursty": 90}) == [*["steady", "bursty"] * 3, "steady"]


def test_a_round_with_one_load_less_is_expected_to_be_shorter(monkeypatch, tmp_path):
    """The others lasted 130 s: only by its own length does the last one fit."""
    course = Course(monkeypatch, tmp_path, scaling=None, budget=490)
    course.verdicts["steady"] = [DECIDED]
    monkeypatch.setattr(stopping, "expected_s", lambda *_: 90)
    assert course.run({"steady": 40, "bursty": 90}) == [*["steady", "bursty"] * 3, "bursty"]


def test_a_study_ends_when_everything_is_decided(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path, scaling=None)
    course.verdicts = {"steady": [DECIDED], "bursty": [DECIDED, DECIDED]}
    assert sorted(course.run({"steady": 60, "bursty": 90})) == ["bursty"] * 3 + ["steady"] * 3
    assert "it is not loaded again" in course.lines[0]


def test_every_scenario_has_two_rounds_even_where_they_last_longer_than_the_budget(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path, scaling=None)
    assert sorted(course.run({"steady": 900, "bursty": 900})) == ["bursty"] * 2 + ["steady"] * 2
    course.stopping.end()
    assert course.stopping.looks == {}


def test_what_is_not_repeated_keeps_its_time(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path)
    course.run({"steady": 60, "bursty": 90, "scaling": 20})
    assert course.ran.count("scaling") == 4
    with_scaling = course.ran.count("steady") + course.ran.count("bursty")
    course = Course(monkeypatch, tmp_path, scaling=None)
    assert len(course.run({"steady": 60, "bursty": 90})) > with_scaling


def test_looks_rise_with_the_time_and_the_last_one_of_an_open_question_is_the_end(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path, scaling=None)
    course.verdicts["bursty"] = [DECIDED]
    course.run({"steady": 60, "bursty": 90})
    steady, bursty = course.stopping.looks["steady"], course.stopping.looks["bursty"]
    assert steady == sorted(set(steady)) and 0 < steady[0] < steady[-1] < 1
    course.stopping.end()
    assert course.stopping.looks == {"steady": [*steady[:-1], 1.0], "bursty": bursty}


def go_on(course: Course) -> None:
    """Stop the study, and take it up again hours later."""
    record = course.stopping.record
    done = [cells for cells in course.rounds if cells not in course.pending]
    before = SimpleNamespace(
        study=SimpleNamespace(looks=record["looks"], budget_spent=SimpleNamespace(**record["budget_spent"])),
        cells=[SimpleNamespace(complete=True, cell=cell) for cells in done for cell in cells],
    )
    course.clock.now_s += 10_000
    course.stopping = Stopping(course.plan, course.rounds, before, clock=course.clock)
    assert course.stopping.spent_s == pytest.approx(record["budget_spent"]["all_s"])
    assert course.stopping.looks == record["looks"]


def test_a_study_that_goes_on_has_spent_what_it_had_spent(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path, scaling=None)
    course.run({"steady": 60, "bursty": 90}, most=7)
    before = course.stopping.looks["steady"]
    go_on(course)
    course.run({"steady": 60, "bursty": 90})
    assert course.stopping.spent_s <= 900
    assert course.stopping.looks["steady"][: len(before)] == before


def test_what_was_decided_stays_decided_when_a_study_goes_on(monkeypatch, tmp_path):
    course = Course(monkeypatch, tmp_path, scaling=None)
    course.verdicts["steady"] = [DECIDED]
    course.run({"steady": 60, "bursty": 90}, most=6)
    assert course.ran.count("steady") == 3
    go_on(course)
    course.run({"steady": 60, "bursty": 90})
    assert course.ran.count("steady") == 3 and course.ran.count("bursty") > 4


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with a budget of 140 s, of which each round takes 40: its generator sends nothing."""
    clock, run_round = Clock(), runner.run_round

    def forty_seconds(*arguments):
        outcomes = run_round(*arguments)
        clock.now_s += 40
        return outcomes

    monkeypatch.setattr(runner, "run_round", forty_seconds)
    monkeypatch.setattr(study_run, "Stopping", functools.partial(Stopping, clock=clock))
    monkeypatch.setattr(scraper, "_start_prometheus", lambda *_: None)
    monkeypatch.setattr(runner, "ENGINES", toy_engines())
    changes = {"repetitions": None, "cold_starts": 0, "scaling": None, "budget": 140}
    text = toy_plan(write_toy_model(tmp_path / "toy"), **changes)
    machine = MadeUpMachine(QUIET)
    return Study(parse_plan(text, "p"), text, tmp_path / "runs", generator=toy_generator(), machine=machine)


def test_a_study_says_at_which_looks_it_was_judged_and_its_results_use_them(study):
    path = study.carry_out()
    stored = json.loads((path / "study.json").read_text())
    assert stored["state"] == "complete" and stored["budget_spent"]["all_s"] > 0
    (look,) = stored["looks"]["steady"]
    assert look in (pytest.approx(120 / 140), 1.0)
    record = read_run(path)
    results = compute(record)
    assert len(record.cells) < len(record.study.cells) and not [note for note in results.notes if "runs are" in note]
    assert load_text(results, "steady") == "100 requests/s for 8 s, as many runs as a budget of 140 s holds"
    found = {one.metric: one.verdict for one in results.verdicts}
    assert found["steady.p50"].outcome == "A" and found["steady.p50"].paired
    # the study judges what its results judge: the same questions over the same runs
    live = live_questions(record, record.study.looks)
    assert {key[0] for key in live["steady"]} == set(found)
    for key, question in live["steady"].items():
        assert (question.a, question.b) == (_runs(record, key[0], key[1]), _runs(record, key[0], key[2]))
        assert question.better == next(one for one in results.metrics if one.key == key[0]).better
    decided = {
        key[0] for key in live_decisions(live, record.study.plan, family_size(record.study, live))["steady"].decided
    }
    assert "steady.p50" in decided
    assert all(found[metric].outcome != "inconclusive" for metric in decided)


def _runs(record, metric: str, engine: str):
    return next(one for one in compute(record).metrics if one.key == metric).values[engine].runs


def test_a_winner_of_a_look_must_win_against_the_whole_family():
    """p is 0.02: enough for one question, and not for ten."""
    question = Question([1.0, 1.1, 1.2, 1.05], [1.25, 1.2, 1.35, 1.3], "lower", rounds=([1, 2, 3, 4], [1, 2, 3, 4]))
    plan = SimpleNamespace(margin_percent=1)
    key = ("steady.p50", "a", "b")
    found = [live_decisions({"steady": {key: question}}, plan, family)["steady"] for family in (1, 10)]
    assert [one.verdicts[key].outcome for one in found] == ["A", "inconclusive"]
    assert [one.may_stop for one in found] == [True, False]


def test_the_family_holds_every_question_that_the_results_may_have(tmp_path):
    """Two variants, cold starts under two conditions, and an objective on a figure of one variant."""
    changes = {"page_cache": ["warm", "cold"], "cold_starts": 2, "protocol": ["rest", "grpc"], "scaling": None}
    changes["objectives"] = [{"metric": "steady[gRPC].mean_ms", "at_most": 20}]
    plan = parse_plan(toy_plan(tmp_path / "toy", **{**LOADS, **changes}), "p")
    asked = PlanFile.model_validate(plan.model_dump(mode="json"))
    groups = ["steady[REST]", "steady[gRPC]", "bursty[REST]", "bursty[gRPC]"]
    assert asked_in("steady[gRPC]", asked) == ["p50", "p99", "mean_ms", "cpu_ms_per_image"]
    assert asked_in("steady[REST]", asked) == ["p50", "p99", "cpu_ms_per_image"]
    assert asked_in("capacity", asked) == ["crossing_images_per_s"]
    # 7 under steady and 4 in bursty load, 1 of cold starts for each condition and variant, and the objective
    assert family_size(SimpleNamespace(plan=asked, variants=[None, None]), groups) == 7 + 4 + 4 + 1


def test_before_a_budget_begins_no_more_time_is_expected_than_it_has(study, monkeypatch):
    seen = []

    def prepare(_model, display):
        outlook = display.outlook
        seen.append((outlook.left_s(time.monotonic()), sum(step.guess_s for step in outlook.steps)))
        raise StudyError("enough is seen")

    monkeypatch.setattr(study, "_prepare", prepare)
    with pytest.raises(StudyError, match="enough"):
        study.carry_out()
    ((left_s, all_rounds_s),) = seen
    assert left_s <= 140 < all_rounds_s
