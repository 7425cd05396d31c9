"""Plan to cells: complete, interleaved, and the same for the same seed."""

from __future__ import annotations

from collections import Counter

from servestorm.plan.cells import cells_of
from servestorm.plan.study_plan import parse_plan

PLAN = """\
name: a
engines: [savedmodel, torchserve]
cold_starts: 5
repetitions: 3
steady: {rate_per_s: 5, duration_s: 3}
bursty: {base_rate: 5, peak_rate: 9, on_s: 1, off_s: 1, duration_s: 4}
scaling: {replicas: [1, 2, 4], duration_s: 3, repetitions: 2}
seed: SEED
"""


def cells(seed: int = 1):
    return cells_of(parse_plan(PLAN.replace("SEED", str(seed)), "plan"))


def test_every_run_of_the_plan_is_there_once():
    count = Counter((cell.scenario, cell.engine, cell.replicas) for cell in cells())
    for engine in ("savedmodel", "torchserve"):
        assert count[("coldstart", engine, 1)] == 5
        assert count[("steady", engine, 1)] == count[("bursty", engine, 1)] == 3
        assert [count[("scaling", engine, n)] for n in (1, 2, 4)] == [2, 2, 2]
    assert len({cell.id for cell in cells()}) == len(cells()) == sum(count.values())


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    assert cells(1) == cells(1)
    assert [c.engine for c in cells(1)] != [c.engine for c in cells(2)]


def test_engines_are_interleaved_so_that_drift_hits_all_alike():
    for scenario in ("coldstart", "steady", "bursty"):
        order = [cell for cell in cells() if cell.scenario == scenario]
        for pair in zip(order[::2], order[1::2], strict=True):
            assert {cell.engine for cell in pair} == {"savedmodel", "torchserve"}


def test_who_goes_first_is_not_always_the_same():
    starts = [cell.engine for cell in cells() if cell.scenario == "coldstart"]
    assert len(set(starts[::2])) == 2


def test_all_engines_of_a_repetition_see_the_same_arrivals():
    seeds = {}
    for cell in cells():
        seeds.setdefault((cell.scenario, cell.replicas, cell.repetition), set()).add(cell.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({cell.seed for cell in cells() if cell.scenario == "steady"}) == 3


def test_what_is_not_asked_gives_no_cell():
    plan = parse_plan("name: a\nengines: [tfserving]\ncold_starts: 2\n", "plan")
    assert [(c.scenario, c.engine) for c in cells_of(plan)] == [("coldstart", "tfserving")] * 2
