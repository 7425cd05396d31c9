"""Capacity: verdicts, cost and scaling go by the estimate, the promise is shown, and what is missing is said."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from servestorm.analysis.judgements import judge
from servestorm.analysis.rows import P99_CLAIM_ROW, Rows
from servestorm.analysis.run import Run
from servestorm.analysis.scenarios.scaling import ScalingAnalysis
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.analysis.search_numbers import is_search_valid, measured_search
from servestorm.compare.comparison import DEFAULT_KEYS
from servestorm.methods.capacity_estimate import Crossing
from servestorm.methods.capacity_search import Probe, Search
from servestorm.plan.scenarios import Objective
from servestorm.rundir.shapes.search import CapacityFile
from tests.stand_ins.figure_data import search
from tests.stand_ins.synthetic_run import bare_record

ENGINES = ("savedmodel", "torchserve")
CAPACITY = SCENARIO_ANALYSES["capacity"]


def run_of(engine: str, repetition: int, promise: float | None, estimate: float | None) -> Run:
    crossing = Crossing(estimate, 0.9 * estimate, 1.2 * estimate, 5) if estimate else None
    return Run(
        id=f"{engine}-{repetition}",
        scenario="capacity",
        engine=engine,
        replicas=1,
        repetition=repetition,
        group="capacity",
        state="complete",
        valid=True,
        reasons=[],
        numbers={"images_per_s": promise, "crossing_images_per_s": estimate},
        capacity=search([], rate_per_s=promise, crossing=crossing),
    )


def rows_of(runs):
    return {row.key: row for row in CAPACITY.rows(Rows(ENGINES, runs, {}), "capacity", bare_record(Path("none"), [0]))}


def judged(runs, objectives=()):
    plan = SimpleNamespace(objectives=objectives, interleaved=False, margin_percent=5.0)
    rows = list(rows_of(runs).values())
    return judge(rows, SimpleNamespace(plan=plan, looks={}), {"capacity": "Capacity"}, {})


SIDES = [
    *(run_of("savedmodel", n, 100.0 + n, estimate) for n, estimate in enumerate((203.0, 204.0, 203.5, 204.5), 1)),
    *(run_of("torchserve", n, 101.0 + n, estimate) for n, estimate in enumerate((151.0, 152.0, 151.5, 152.5), 1)),
]


def test_the_verdict_is_on_the_estimate_also_where_an_objective_names_the_promise():
    objective = Objective(metric="capacity.images_per_s", at_least=50)
    for objectives in ((), (objective,)):
        (one,) = judged(SIDES, objectives)
        assert one.metric == "capacity.crossing_images_per_s"
        assert one.verdict.outcome == "A"
        assert (one.verdict.mean_a, one.verdict.mean_b) == (203.75, 151.75)
    assert "capacity.crossing_images_per_s" in DEFAULT_KEYS
    assert "capacity.images_per_s" not in DEFAULT_KEYS


def test_without_an_estimate_there_is_no_verdict_and_the_promise_takes_its_place_nowhere():
    runs = [replace(run, **without()) if run.engine == "torchserve" else run for run in SIDES]
    (one,) = judged(runs)
    assert one.withheld == "no estimate"
    assert one.verdict.reason.startswith("No verdict: the probes of TorchServe do not tell at which rate p99 meets")
    assert one.verdict.runs_more is None
    rows = rows_of(runs)
    assert rows["capacity.images_per_s"].values["torchserve"].value == 103.5
    assert rows["capacity.crossing_images_per_s"].values["torchserve"].value is None
    (note,) = CAPACITY.notes(runs, None)
    assert note.startswith("4 of 4 searches for the capacity of TorchServe do not tell at which rate p99 meets")


def without():
    return {"numbers": {"images_per_s": 103.5, "crossing_images_per_s": None}, "capacity": search([], rate_per_s=103.5)}


def test_a_search_without_an_estimate_is_said_and_the_others_are_judged():
    runs = [replace(SIDES[0], **without()), *SIDES[1:]]
    (one,) = judged(runs)
    assert (one.withheld, one.verdict.outcome, one.verdict.n_a) == (None, "A", 3)
    (note,) = CAPACITY.notes(runs, None)
    assert note.startswith("1 of 4 searches for the capacity of savedmodel")


def test_one_search_alone_has_the_interval_of_its_estimate_and_several_that_of_their_scatter():
    value = rows_of([SIDES[0]])["capacity.crossing_images_per_s"].values["savedmodel"]
    assert value.ci == pytest.approx((0.9 * 203, 1.2 * 203))
    assert value.ci_from == "samples"
    value = rows_of(SIDES)["capacity.crossing_images_per_s"].values["savedmodel"]
    assert value.ci_from == "runs"
    assert value.ci[1] / value.ci[0] < 1.02


def vague(run):
    """The run with an estimate whose interval the probes do not tell."""
    met = run.capacity.crossing
    return replace(run, capacity=replace(run.capacity, crossing=replace(met, low=None, high=None)))


def test_an_estimate_without_an_interval_counts_among_others_and_not_alone():
    (one,) = judged([vague(run) for run in SIDES])
    assert (one.withheld, one.verdict.outcome, one.verdict.mean_a) == (None, "A", 203.75)
    assert not list(CAPACITY.notes([vague(run) for run in SIDES], None))
    alone = [vague(SIDES[0])]
    value = rows_of(alone)["capacity.crossing_images_per_s"].values["savedmodel"]
    assert (value.value, value.runs, value.ci) == (None, [None], None)
    (note,) = CAPACITY.notes(alone, None)
    assert note.startswith("1 of 1 searches for the capacity of savedmodel do not tell at which rate p99 meets")


def test_replica_counts_are_compared_by_the_estimate():
    runs = [
        replace(run, scenario="scaling", group="scaling", engine="savedmodel", replicas=replicas)
        for replicas, run in ((1, SIDES[0]), (2, SIDES[4]))
    ]
    plan = SimpleNamespace(scaling=SimpleNamespace(replicas=[1, 2], measure="capacity"))
    record = SimpleNamespace(study=SimpleNamespace(plan=plan))
    rows = {row.key: row for row in ScalingAnalysis().rows(Rows(["savedmodel"], runs, {}), "scaling", record)}
    assert rows["scaling.images_per_s_x2"].values["savedmodel"].value == 151.0
    assert rows["scaling.factor_x2"].values["savedmodel"].value == pytest.approx(151 / 203)


def stored(verdicts, p99_ms):
    """capacity.json of a search near 160/s, where p99 is 10 / (1 - rate / 200) ms."""
    steps = Search(100)
    for verdict in verdicts:
        rate = steps.next_rate()
        steps.record(Probe(rate, verdict, "", p99_ms(rate), 0.0))
    capacity = {"objective": {"p99_ms": 50.0, "max_error_percent": 0.1}, **asdict(steps.result())}
    return CapacityFile.model_validate(json.loads(json.dumps(capacity)))


def test_a_search_that_promises_nothing_counts_where_its_probes_tell_the_estimate():
    near = stored(["pass", "fail", "pass", "fail", "pass"], lambda rate: 10 / (1 - min(rate, 199) / 200))
    record = SimpleNamespace(capacity=near, complete=True)
    assert not near.confirmed
    numbers = measured_search(record, 1).numbers
    assert numbers["images_per_s"] is None
    assert numbers["crossing_images_per_s"] == pytest.approx(160, rel=0.01)
    assert is_search_valid(record)
    far = stored(["pass", "fail", "pass", "fail", "pass"], lambda rate: 5.0 if rate < 160 else 5000.0)
    assert not is_search_valid(SimpleNamespace(capacity=far, complete=True))


def claimed(*claims):
    runs = [
        replace(SIDES[0], id=str(n), scenario="steady", group="steady", repetition=n, numbers={"p99_claim": claim})
        for n, claim in enumerate(claims)
    ]
    return Rows(ENGINES[:1], runs, {}).largest("steady", P99_CLAIM_ROW).values["savedmodel"]


def test_a_claim_is_the_largest_of_its_runs_and_must_hold_for_all_of_them():
    value = claimed(20.0, 30.0, 25.0)
    assert (value.value, value.sd, value.ci, value.value_from) == (30.0, None, None, "largest")
    assert value.runs == [20.0, 30.0, 25.0]
    assert claimed(20.0, None).value is None
    assert claimed().value is None
