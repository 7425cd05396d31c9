"""Rounds: which cells stand up at once, how many there are, and which plans have none."""

from __future__ import annotations

import math

import pytest

from servestorm.errors import StudyError
from servestorm.plan.cells import cells_of, loads_of, rounds_of
from servestorm.plan.study_plan import parse_plan
from servestorm.plan.turns import WARM_AGAIN_S
from servestorm.rundir.shapes.study import PlanFile

LOADS = """\
name: a
engines: [savedmodel, torchserve]
cold_starts: 2
protocol: [rest, grpc]
steady: {rate_per_s: 5, duration_s: 10}
bursty: {base_rate: 5, peak_rate: 9, on_s: 2, off_s: 2, duration_s: 12}
capacity: {p99_ms: 20}
"""
COUNTED = LOADS + "repetitions: 3\nscaling: {replicas: [1, 2], duration_s: 3, repetitions: 2}\n"


def plan_of(text):
    return parse_plan(text, "plan")


def test_a_round_holds_every_engine_once_under_each_of_its_loads_and_steady_and_bursty_load_share_the_servers():
    plan = plan_of(COUNTED)
    cells = cells_of(plan)
    rounds = rounds_of(plan, cells)
    assert [cell for together in rounds for cell in together] == cells
    turns = [together for together in rounds if together[0].scenario in ("steady", "bursty", "capacity")]
    assert len(turns) == 2 * 2 * 3
    scenarios = [[load[0].scenario for load in loads_of(together)] for together in turns]
    assert sorted(scenarios) == [["capacity"]] * 6 + [["steady", "bursty"]] * 6
    for together in turns:
        assert len({(cell.variant, cell.repetition, cell.seed) for cell in together}) == 1
        for load in loads_of(together):
            assert sorted(cell.engine for cell in load) == ["savedmodel", "torchserve"]
            assert len({cell.scenario for cell in load}) == 1
    assert all(len(together) == 1 for together in rounds if together not in turns)


def test_cold_starts_come_first_then_repetition_by_repetition_then_scaling():
    plan = plan_of(COUNTED)
    scenarios = [(cells[0].scenario, cells[0].repetition) for cells in rounds_of(plan, cells_of(plan))]
    loads = [(name, number) for name, number in scenarios if name not in ("coldstart", "scaling")]
    assert [name for name, _ in scenarios[:5]] == ["coldstart"] * 4 + [loads[0][0]]
    assert [number for _, number in loads] == sorted(number for _, number in loads)
    assert scenarios[-1][0] == "scaling"


@pytest.mark.parametrize(
    "text",
    [
        COUNTED + "design: blocks\n",
        COUNTED.replace("[savedmodel, torchserve]", "[savedmodel]"),
        COUNTED + "backend: kubernetes\nload_from: cluster\n",
    ],
)
def test_without_engines_that_take_turns_every_cell_is_a_round(text):
    plan = plan_of(text)
    assert not plan.interleaved
    assert {len(cells) for cells in rounds_of(plan, cells_of(plan))} == {1}


def test_the_order_of_blocks_is_that_of_studies_before_there_were_rounds():
    text = "name: a\nengines: [savedmodel, torchserve]\ncold_starts: 0\ndesign: blocks\nrepetitions: 3\n"
    cells = cells_of(plan_of(text + "steady: {rate_per_s: 5, duration_s: 1}\ncapacity: {p99_ms: 9}\n"))
    assert [cell.id for cell in cells[:4]] == [
        "000-capacity-torchserve-1",
        "001-steady-savedmodel-1",
        "002-capacity-savedmodel-1",
        "003-steady-torchserve-1",
    ]


def test_run_directories_without_the_key_have_blocks_and_no_budget():
    assert PlanFile.model_fields["design"].default == "blocks"
    assert PlanFile.model_fields["budget"].default is None
    stored = plan_of(COUNTED + "design: blocks\n").model_dump(mode="json")
    assert not stored.keys() & {"design", "budget"} and "slice_s" not in stored["steady"]
    stored = plan_of(COUNTED.replace("duration_s: 10", "duration_s: 10, slice_s: 5")).model_dump(mode="json")
    assert (stored["design"], stored["steady"]["slice_s"]) == ("interleaved", 5.0)


@pytest.mark.parametrize(("written", "seconds"), [("20 min", 1200), ("900 s", 900), ("1.5 h", 5400), ("800", 800)])
def test_a_budget_may_have_a_unit(written, seconds):
    assert plan_of(f"{LOADS}budget: {written}\n").budget == seconds


def test_a_budget_gives_as_many_repetitions_as_it_can_hold_at_most():
    plan = plan_of(LOADS + "budget: 30 min\n")
    assert plan.most_repetitions == int(1800 // plan.planned_loads.round_s) >= 2
    assert max(cell.repetition for cell in cells_of(plan) if cell.scenario == "steady") == plan.most_repetitions
    assert plan_of(COUNTED).most_repetitions == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LOADS + "budget: soon\n", "`budget`: write a time such as 10 min, 90 s or 1 h, or seconds as a number"),
        (COUNTED + "budget: 1 h\n", "budget takes the place of repetitions: give one of them"),
        (LOADS + "budget: 100 s\n", "a budget of 100 s is too short for two instances of each engine"),
        (LOADS.replace("[savedmodel, torchserve]", "[savedmodel]") + "budget: 1 h\n", "there is one engine"),
        (LOADS + "budget: 1 h\ndesign: blocks\n", "engines that take turns, and design is blocks: give repetitions"),
        ("name: a\nengines: [savedmodel, torchserve]\nbudget: 1 h\n", "budget repeats steady, bursty or capacity"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_one_sentence(text, sentence):
    with pytest.raises(StudyError) as raised:
        plan_of(text)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


def test_the_second_load_of_a_round_warms_only_its_connections():
    """Its servers have just borne another load."""
    texts = [LOADS, LOADS.replace("steady: {rate_per_s: 5, duration_s: 10}\n", ""), LOADS.replace("bursty:", "#")]
    both_s, bursty_s, steady_s = (plan_of(text + "budget: 10 h\n").planned_loads.round_s for text in texts)
    probes_s = plan_of(
        texts[0].replace("steady:", "#").replace("bursty:", "#") + "budget: 10 h\n"
    ).planned_loads.round_s
    warmup_s = plan_of(LOADS + "repetitions: 3").bursty.warmup_s
    assert warmup_s > WARM_AGAIN_S
    variants, engines = 2, 2
    spared_s = variants * engines * (warmup_s - WARM_AGAIN_S)
    assert both_s == pytest.approx(steady_s + bursty_s - probes_s - spared_s)


def test_the_shortest_budget_that_is_named_is_taken():
    least_s = math.ceil(plan_of(LOADS + "budget: 10 h\n").planned_loads.shortest_study_s)
    assert plan_of(f"{LOADS}budget: {least_s} s\n").most_repetitions == 2


def test_one_endpoint_for_two_engines_cannot_take_turns_with_itself():
    text = "name: a\nengines: [savedmodel, torchserve]\nbackend: attach\nsteady: {rate_per_s: 1, duration_s: 1}\n"
    text += "attach: {savedmodel: {rest: 'http://a:1'}, torchserve: {rest: 'http://a:1'}}\n"
    with pytest.raises(StudyError, match="cannot take turns with itself: set design: blocks"):
        plan_of(text)
    assert not plan_of(text + "design: blocks\n").interleaved
    assert plan_of(text.replace("torchserve: {rest: 'http://a:1'", "torchserve: {rest: 'http://a:2'")).interleaved
